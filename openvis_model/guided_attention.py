"""CLIP's attention layers with instance tokens (OpenVIS, Eq. 3), in whatever form a CLIP has them."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

Layout = Mapping[str, tuple[str, ...]]
"""Names of an attention layer's weights in CLIP, each with the names of the weights that it fuses."""

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")

_FUSED = PROJECTIONS[:3]

MULTIHEAD: Layout = {
    "in_proj_weight": tuple(f"{name}.weight" for name in _FUSED),
    "in_proj_bias": tuple(f"{name}.bias" for name in _FUSED),
    "out_proj.weight": ("out_proj.weight",),
    "out_proj.bias": ("out_proj.bias",),
}
"""The layout of torch's `MultiheadAttention`."""

Rotation = tuple[Float[Tensor, "P d"], Float[Tensor, "P d"]]
"""Sines and cosines by which the queries and keys of patches are rotated (Su et al. 2021)."""


class SplitAttention(nn.Module):
    """An attention layer with the weights of one of CLIP's.

    Query, key and value have separate projections, which CLIP may fuse, so that adapters apply to query and value only.

    Args:
        attention: the layer of CLIP.
        layout: names of its weights; those that it lacks are left out.
    """

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module
    out_proj: nn.Module

    def __init__(self, attention: nn.Module, layout: Layout) -> None:
        super().__init__()
        state = attention.state_dict()
        self.heads: int = attention.num_heads  # type: ignore[assignment]
        self.layout = {name: parts for name, parts in layout.items() if name in state}
        weights: dict[str, Tensor] = {}
        for name, parts in self.layout.items():
            weights |= zip(parts, state[name].chunk(len(parts)), strict=True)
        for name in PROJECTIONS:
            weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
            projection = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
            with torch.no_grad():
                projection.weight.copy_(weight)
                if bias is not None:
                    projection.bias.copy_(bias)
            setattr(self, name, projection)

    def fused(self) -> dict[str, Tensor]:
        """Returns the projections as CLIP has them, without adapters."""
        return {name: torch.cat([self._weight(part) for part in parts]) for name, parts in self.layout.items()}

    def _weight(self, name: str) -> Tensor:
        projection, _, kind = name.partition(".")
        module = getattr(self, projection)
        weight: Tensor = getattr(module.get_base_layer() if isinstance(module, LoraLayer) else module, kind)
        return weight

    def _heads(self, x: Float[Tensor, "B S W"]) -> Float[Tensor, "B heads S d"]:
        heads: Tensor = x.unflatten(2, (self.heads, -1))
        return heads.transpose(1, 2)


class InstanceGuidanceAttention(SplitAttention):
    """Multi-head attention in two streams, with the weights of one of CLIP's attention layers (OpenVIS, Eq. 3).

    Args:
        attention: the layer of CLIP.
        layout: names of its weights.
        norm: normalises what was attended to, before the last projection, in the CLIPs that do so.
    """

    def __init__(self, attention: nn.Module, layout: Layout = MULTIHEAD, norm: nn.Module | None = None) -> None:
        super().__init__(attention, layout)
        self.norm = norm

    def forward(
        self,
        tokens: Float[Tensor, "B S W"],
        guidance: Float[Tensor, "B N P"],
        skip: int,
        rotation: Rotation | None = None,
    ) -> Float[Tensor, "B S-{skip} W"]:
        """Attends from all tokens but the first `skip` (patches whose output is unused) to the whole sequence.

        Args:
            tokens: S = P + R + N tokens: patches, R registers (0 or 1), instances.
            guidance: added to the attention scores of instance tokens on patches.
            skip: number of leading tokens without output, at most P.
            rotation: of the queries and keys of patches; other tokens are not rotated.
        """
        instances, patches = guidance.shape[1:]
        first_instance = tokens.shape[1] - instances
        q = self._heads(self.q_proj(tokens[:, skip:]))
        k = self._heads(self.k_proj(tokens))
        v = self._heads(self.v_proj(tokens))
        if rotation is not None:
            q, k = rotated(q, rotation, patches, skip), rotated(k, rotation, patches, 0)

        q_image, q_instance = q.split([first_instance - skip, instances], dim=2)
        k_image, k_instance = k.split([first_instance, instances], dim=2)
        v_image, v_instance = v.split([first_instance, instances], dim=2)
        image = F.scaled_dot_product_attention(q_image, k_image, v_image)

        # An instance attends to all patches and itself. Its own key reuses the register's column among the image keys,
        # which saves a copy of all keys and values; without a register, that column is added.
        if instances and first_instance == patches:
            k_image, v_image = (F.pad(x, (0, 0, 0, 1)) for x in (k_image, v_image))
        if instances:
            q_instance = q_instance * q.shape[-1] ** -0.5
            scores = q_instance @ k_image.mT + F.pad(guidance, (0, 1))[:, None]
            scores[..., -1] = (q_instance * k_instance).sum(-1)
            attention = scores.softmax(-1).to(v.dtype)
            instance = attention @ v_image + attention[..., -1:] * (v_instance - v_image[:, :, -1:])
            image = torch.cat([image, instance], dim=2)

        x = image.transpose(1, 2).flatten(2)
        out: Tensor = self.out_proj(x if self.norm is None else self.norm(x))
        return out


class GuidedPool(SplitAttention):
    """An attention-pooling head: probes look at the patches, each guided by its mask.

    Args:
        pool: the head of CLIP, which has one probe.
        layout: names of its projections' weights.
    """

    def __init__(self, pool: nn.Module, layout: Layout) -> None:
        super().__init__(pool, layout)
        self.latent: nn.Parameter = pool.latent  # type: ignore[assignment] # timm's name of the probe
        self.norm: nn.Module = pool.norm  # type: ignore[assignment]
        self.mlp: nn.Module = pool.mlp  # type: ignore[assignment]

    def forward(
        self,
        probes: Float[Tensor, "B M W"],
        patches: Float[Tensor, "B P W"],
        guidance: Float[Tensor, "B M P"],
        own: Float[Tensor, "B M W"] | None,
    ) -> Float[Tensor, "B M W"]:
        """Pools the patches once for each probe; probes do not see each other.

        Args:
            probes: M probes.
            patches: what they look at.
            guidance: added to the attention scores of probes on patches.
            own: a further token for each probe, which no other one sees: the class token, or an instance token.
        """
        q = self._heads(self.q_proj(probes))
        q = q * q.shape[-1] ** -0.5
        k, v = self._heads(self.k_proj(patches)), self._heads(self.v_proj(patches))
        if own is None:
            # A mask that touches no patch guides nowhere: without another token to look at, its probe sees all patches.
            nowhere = guidance.isneginf().all(-1, keepdim=True)
            scores = q @ k.mT + guidance.masked_fill(nowhere, 0)[:, None]
            x = scores.softmax(-1).to(v.dtype) @ v
        else:
            k_own, v_own = self._heads(self.k_proj(own)), self._heads(self.v_proj(own))
            scores = torch.cat([q @ k.mT + guidance[:, None], (q * k_own).sum(-1, keepdim=True)], -1)
            seen, itself = scores.softmax(-1).to(v.dtype).split([patches.shape[1], 1], -1)
            x = seen @ v + itself * v_own
        x = self.out_proj(x.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm(x))  # type: ignore[no-any-return]


def rotated(
    x: Float[Tensor, "B heads S d"], rotation: Rotation, patches: int, skip: int
) -> Float[Tensor, "B heads S d"]:
    """Rotates the patches among tokens: the leading ones, of which the first `skip` are missing."""
    sine, cosine = (part[skip:] for part in rotation)
    of_patches, others = x.split([patches - skip, x.shape[2] - patches + skip], dim=2)
    turned = torch.stack([-of_patches[..., 1::2], of_patches[..., ::2]], -1).flatten(-2)
    return torch.cat([(of_patches * cosine + turned * sine).to(x.dtype), others], dim=2)


def split_state(visual: nn.Module) -> dict[str, Tensor]:
    """Returns the state dict that a vision tower had before its attention layers were split, without adapters."""
    layers = {name: module for name, module in visual.named_modules() if isinstance(module, SplitAttention)}
    ours = tuple(f"{layer}.{projection}." for layer in layers for projection in PROJECTIONS)
    state = {name: tensor for name, tensor in visual.state_dict().items() if not name.startswith(ours)}
    for layer, module in layers.items():
        state |= {f"{layer}.{name}": tensor for name, tensor in module.fused().items()}
    return state
