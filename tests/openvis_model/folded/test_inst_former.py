import torch

from openvis_model.folded.inst_former import FoldedInstFormer
from openvis_model.inst_former import InstFormer
from openvis_model.weights.checkpoint import fold


def test_it_is_for_inference_only(mini_model: InstFormer) -> None:
    folded = fold(mini_model)
    assert isinstance(folded, FoldedInstFormer)
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert folded.identity() == folded.fingerprint != mini_model.identity()


def test_everything_moves_with_the_model(mini_model: InstFormer) -> None:
    folded = fold(mini_model).to("meta")
    assert {tensor.device.type for tensor in (*folded.parameters(), *folded.buffers())} == {"meta"}
    assert torch.float32 in {tensor.dtype for tensor in folded.buffers()}
