from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

from openvis_model.folded.inst_former import FoldedInstFormer
from openvis_model.inst_former import InstFormer
from openvis_model.weights.checkpoint import fold
from tests.openvis_model.same import assert_same


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


@pytest.mark.nightly
@pytest.mark.usefixtures("as_user")
def test_a_compiled_model_is_compiled_once_for_a_size(mini_model: InstFormer) -> None:
    graphs, plain, compiled = list[GraphModule](), fold(mini_model), fold(mini_model)

    def backend(graph: GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    for network in (compiled.mask_proposal, compiled.classifier):
        network.compile(backend=backend)
    for size in ((96, 128), (128, 96), (96, 160)):
        frames = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
        assert_same(compiled(frames), plain(frames))
        known = len(graphs)
        compiled(frames)
        assert len(graphs) == known > 0
