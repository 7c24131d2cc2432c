import torch
import torch.nn.functional as F
from torch import nn

from openvis_model.folded.layers import Convolution, ConvolutionGroupNorm, Linear, Weights, hold_in_bfloat16
from openvis_model.inst_former import InstFormer
from openvis_model.weights.checkpoint import fold


def test_items_are_in_the_order_of_their_numbers() -> None:
    weights = Weights({f"layers.{number}.weight": torch.tensor(float(number)) for number in (10, 2, 0)})
    assert [each["weight"].item() for each in weights.items("layers")] == [0, 2, 10]


def test_weights_know_what_was_not_used() -> None:
    weights = Weights({"a.b.weight": torch.ones(1), "a.b.bias": torch.ones(1), "a.c": torch.ones(1)})
    part = weights.under("a").under("b")
    assert part["weight"] == 1
    assert part.get("scale") is None
    assert weights.unused == {"a.b.bias", "a.c"}


def test_a_folded_batch_norm_gives_the_same() -> None:
    convolution, norm = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4)
    both = nn.ModuleDict({"c": convolution, "n": norm}).double().eval()
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2)
    weights = Weights(both.state_dict())
    folded = Convolution.with_batch_norm(weights.under("c"), weights.under("n"), stride=2)
    x = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(folded(x), norm(convolution(x)), rtol=0, atol=1e-12)


def test_joined_layers_stand_side_by_side() -> None:
    first, second = nn.Linear(3, 2), nn.Linear(3, 4)
    x = torch.randn(5, 3)
    joined = Linear.of(Weights(first.state_dict()), Weights(second.state_dict()))(x)
    torch.testing.assert_close(joined, torch.cat([first(x), second(x)], -1))


def test_group_norms_have_32_groups() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 64, 1, bias=False), nn.GroupNorm(32, 64))
    x = torch.randn(1, 3, 4, 5)
    torch.testing.assert_close(ConvolutionGroupNorm(Weights(layers.state_dict()))(x), layers(x))
    assert not torch.allclose(layers(x), F.group_norm(layers[0](x), 16))


def test_weights_that_are_cast_once_give_the_same_as_those_that_are_cast_each_time(mini_model: InstFormer) -> None:
    clip, once = fold(mini_model).classifier, fold(mini_model).classifier
    hold_in_bfloat16(once)
    frames, query_index = torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8), torch.tensor([[0, 3], [1, 2]])
    given = (frames, torch.randn(2, 2, 24, 32), query_index)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(once(*given), clip(*given))
    assert {buffer.dtype for buffer in once.blocks[0].output.buffers()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in once.blocks[0].norm_1.buffers()} == {torch.float32}
