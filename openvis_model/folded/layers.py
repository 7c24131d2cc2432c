"""Layers that are built from tensors instead of sizes, and are never trained."""

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Weights:
    """The tensors of a state dict whose names begin with a prefix, and a record of those that were used.

    Args:
        state: the whole state dict.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state
        self.prefix = ""
        self.unused = set(state)

    def __getitem__(self, name: str) -> Tensor:
        self.unused.discard(self.prefix + name)
        return self.state[self.prefix + name]

    def get(self, name: str) -> Tensor | None:
        """Returns a tensor, or None if there is none of that name."""
        return self[name] if self.prefix + name in self.state else None

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the tensors by their names below the prefix, for a module that loads them itself."""
        names = [name for name in self.state if name.startswith(self.prefix)]
        return {name.removeprefix(self.prefix): self[name.removeprefix(self.prefix)] for name in names}

    def under(self, name: str) -> "Weights":
        """Returns the tensors of a submodule."""
        part = copy.copy(self)
        part.prefix = f"{self.prefix}{name}."
        return part

    def items(self, name: str) -> list["Weights"]:
        """Returns the tensors of each module of a list, in their order."""
        start = f"{self.prefix}{name}."
        numbers = {int(key[len(start) :].partition(".")[0]) for key in self.state if key.startswith(start)}
        return [self.under(f"{name}.{number}") for number in sorted(numbers)]


class Linear(nn.Module):
    """x Wᵀ + b."""

    def __init__(self, weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.weight: Tensor
        self.bias: Tensor | None

    @classmethod
    def of(cls, *weights: Weights) -> "Linear":
        """Joins layers with the same input into one, whose outputs stand side by side."""
        return cls(torch.cat([each["weight"] for each in weights]), torch.cat([each["bias"] for each in weights]))

    def forward(self, x: Float[Tensor, "*n in"]) -> Float[Tensor, "*n out"]:
        """Applies the layer."""
        return F.linear(x, self.weight, self.bias)


class LayerNorm(nn.Module):
    """Normalises the last dimension."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.register_buffer("weight", weights["weight"])
        self.register_buffer("bias", weights["bias"])
        self.weight: Tensor
        self.bias: Tensor

    def forward(self, x: Float[Tensor, "*n C"]) -> Float[Tensor, "*n C"]:
        """Applies the norm."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias)


class Convolution(nn.Module):
    """A convolution in the memory layout that is fastest, channels last."""

    def __init__(
        self, weight: Float[Tensor, "out in k k"], bias: Float[Tensor, " out"] | None, *, stride: int = 1
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias)
        self.weight: Tensor
        self.bias: Tensor | None
        self.stride = stride

    @classmethod
    def with_batch_norm(
        cls, convolution: Weights, norm: Weights, *, stride: int = 1, eps: float = 1e-5
    ) -> "Convolution":
        """Folds the batch norm that follows a convolution without bias into it."""
        scale = norm["weight"].double() / (norm["running_var"].double() + eps).sqrt()
        weight = convolution["weight"]
        bias = norm["bias"].double() - norm["running_mean"].double() * scale
        folded = weight.double() * scale[:, None, None, None]
        return cls(folded.to(weight.dtype), bias.to(weight.dtype), stride=stride)

    def forward(self, x: Float[Tensor, "B in H W"]) -> Float[Tensor, "B out h w"]:
        """Applies the convolution, with half a kernel of padding."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.weight.shape[-1] // 2)


class ConvolutionGroupNorm(nn.Module):
    """A convolution and a group norm, as the pixel decoder has them; there are always 32 groups."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        bias = weights.get("0.bias")
        self.convolution = Convolution(weights["0.weight"], bias)
        self.register_buffer("weight", weights["1.weight"])
        self.register_buffer("bias", weights["1.bias"])
        self.weight: Tensor
        self.bias: Tensor

    def forward(self, x: Float[Tensor, "B in H W"]) -> Float[Tensor, "B out H W"]:
        """Applies both."""
        return F.group_norm(self.convolution(x), 32, self.weight, self.bias)


class FeedForward(nn.Module):
    """The two layers that follow attention, with their residual connection and norm."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.widen, self.narrow = Linear.of(weights.under("fc1")), Linear.of(weights.under("fc2"))
        self.norm = LayerNorm(weights.under("final_layer_norm"))

    def forward(self, x: Float[Tensor, "B S C"]) -> Float[Tensor, "B S C"]:
        """Transforms each token."""
        out: Tensor = self.norm(x + self.narrow(self.widen(x).relu_()))
        return out


def hold_in_bfloat16(network: nn.Module) -> None:
    """Casts the weights of a network's products once, which autocast to bfloat16 would do again in each call.

    Results under autocast stay the same: norms, positions and tokens keep their precision. Only layers that are never
    trained are cast.
    """
    for module in network.modules():
        if isinstance(module, Linear | Convolution):
            module.to(torch.bfloat16)
