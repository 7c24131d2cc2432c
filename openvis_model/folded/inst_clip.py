"""InstCLIP at inference, with its adapters folded into CLIP (OpenVIS, Fig. 2b, Eq. 3)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from openvis_model.by_size import BySize
from openvis_model.convolutional_stem import ConvolutionalStem
from openvis_model.folded.layers import LayerNorm, Linear, Weights
from openvis_model.frames import to_pixels
from openvis_model.guidance import instance_guidance
from openvis_model.options import LORA_TARGETS, InstClipConfig
from openvis_model.towers import VisionTowerConfig
from openvis_model.working_size import working_size

QUICK_GELU = 1.702
"""The factor in OpenAI's approximation of GELU, x · sigmoid(1.702 x)."""


class FoldedInstClip(nn.Module):
    """The numbers of an `InstClip` from fewer operations.

    LoRA adapters are merged into the projections. QuickGELU, x · sigmoid(1.702 x) = silu(1.702 x) / 1.702, becomes one
    in-place SiLU between layers that absorb the factor.

    Args:
        config: guidance, register, adapters.
        clip: the CLIP as plain values: stem, pixel_mean, pixel_std.
        tower: the size of CLIP's vision transformer.
        state: CLIP's weights under open_clip's names.
        tokens: instance tokens and register.
        adapters: LoRA's weights under peft's names.
        short_side: working size of the frames, pixels.
    """

    def __init__(
        self,
        config: InstClipConfig,
        clip: Mapping[str, Any],
        tower: VisionTowerConfig,
        *,
        state: Mapping[str, Tensor],
        tokens: Mapping[str, Tensor],
        adapters: Mapping[str, Tensor],
        short_side: int,
    ) -> None:
        super().__init__()
        self.config = config
        self.short_side = short_side
        weights = Weights(state).under("visual")
        self.patch_size = tower.patch_size
        self.grid = (tower.image_size // tower.patch_size, tower.image_size // tower.patch_size)
        self.stem = build_stem(clip["stem"], weights.under("conv1"), tower)
        scale = config.lora_alpha / config.lora_rank
        self.blocks = nn.ModuleList(
            Block(block, adapter, scale=scale, heads=tower.width // tower.head_width, quick_gelu=tower.quick_gelu)
            for block, adapter in zip(
                weights.under("transformer").items("resblocks"),
                Weights(adapters).under("base_model.model.transformer").items("resblocks"),
                strict=True,
            )
        )
        self.norm_before, self.norm_after = LayerNorm(weights.under("ln_pre")), LayerNorm(weights.under("ln_post"))
        for name, tensor in {
            "positions": weights["positional_embedding"][1:],
            "projection": weights["proj"],
            "instance_tokens": tokens["instance_tokens"],
            "register_token": tokens.get("register_token"),
            "mean": weights["proj"].new_tensor(clip["pixel_mean"]).view(3, 1, 1),
            "std": weights["proj"].new_tensor(clip["pixel_std"]).view(3, 1, 1),
        }.items():
            self.register_buffer(name, tensor)
        self.positions: Tensor
        self.projection: Tensor
        self.instance_tokens: Tensor
        self.register_token: Tensor | None
        self.mean: Tensor
        self.std: Tensor
        self.by_size = BySize()

    @property
    def num_queries(self) -> int:
        """N, the number of instance queries, each of which has its own instance token."""
        return len(self.instance_tokens)

    @property
    def embedding_width(self) -> int:
        """D, the width of CLIP's joint embedding space."""
        return self.projection.shape[1]

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width at which a frame of this size is seen, pixels."""
        return working_size(height, width, short_side=self.short_side, divisor=self.patch_size)

    def forward(
        self, frames: Tensor, mask_logits: Float[Tensor, "B N h w"], query_index: Int[Tensor, "B N"]
    ) -> Float[Tensor, "B N D"]:
        """Embeds instances: one unit-norm instance token for each mask.

        Args:
            frames: uint8 [B, H, W, 3], or what `to_pixels` made of them at `input_size`.
            mask_logits: the masks to embed, at any resolution, covering the frame.
            query_index: the instance query of each mask, which selects its instance token.

        Raises:
            ValueError: for frames that `check_frames` refuses.
        """
        pixels = (to_pixels(frames, self.input_size) - self.mean) / self.std
        patches = self.stem(pixels)
        grid = (patches.shape[2], patches.shape[3])
        guidance = instance_guidance(
            mask_logits, grid, guidance=self.config.guidance, resampling=self.config.resampling
        )
        positions = self.by_size((grid,), self.positions, lambda: self._positions(grid))
        image = [patches.flatten(2).mT + positions]
        if self.register_token is not None:
            image.append(self.register_token.expand(len(frames), 1, -1))
        tokens = self.norm_before(torch.cat([*image, self.instance_tokens[query_index]], 1))
        *first, last = self.blocks
        for block in first:
            tokens = block(tokens, guidance, 0)
        count = query_index.shape[1]
        tokens = last(tokens, guidance, tokens.shape[1] - count)  # the image's output of the last block is unused
        return F.normalize(self.norm_after(tokens) @ self.projection, dim=-1)

    def _positions(self, grid: tuple[int, int]) -> Float[Tensor, "P W"]:
        if grid == self.grid:
            return self.positions
        maps = self.positions.unflatten(0, self.grid).permute(2, 0, 1)[None]
        return F.interpolate(maps, size=grid, mode="bicubic", antialias=True)[0].flatten(1).mT


class Block(nn.Module):
    """A transformer block whose attention has two streams, as that of `InstanceGuidanceAttention`."""

    def __init__(self, weights: Weights, adapters: Weights, *, scale: float, heads: int, quick_gelu: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = LayerNorm(weights.under("ln_1")), LayerNorm(weights.under("ln_2"))
        projections = dict(zip(("q_proj", "k_proj", "v_proj"), weights["attn.in_proj_weight"].chunk(3), strict=True))
        for name in LORA_TARGETS:
            down, up = (adapters[f"attn.{name}.lora_{part}.weight"] for part in "AB")
            projections[name] = projections[name] + up @ down * scale
        self.query_key_value = Linear(torch.cat(list(projections.values())), weights["attn.in_proj_bias"])
        self.output = Linear.of(weights.under("attn.out_proj"))
        widen, narrow = weights.under("mlp.c_fc"), weights.under("mlp.c_proj")
        factor = QUICK_GELU if quick_gelu else 1.0
        self.widen = Linear(widen["weight"] * factor, widen["bias"] * factor)
        self.activation: nn.Module = nn.SiLU(inplace=True) if quick_gelu else nn.GELU()
        self.narrow = Linear(narrow["weight"] / factor, narrow["bias"])

    def forward(
        self, tokens: Float[Tensor, "B S W"], guidance: Float[Tensor, "B N P"], skip: int
    ) -> Float[Tensor, "B S-{skip} W"]:
        """Attends, then transforms each token.

        Args:
            tokens: patches, at most one register, instances.
            guidance: added to the attention scores of instance tokens on patches.
            skip: number of leading tokens without output.
        """
        tokens = tokens[:, skip:] + self.output(self._attend(self.norm_1(tokens), guidance, skip))
        return tokens + self.narrow(self.activation(self.widen(self.norm_2(tokens))))  # type: ignore[no-any-return]

    def _attend(
        self, tokens: Float[Tensor, "B S W"], guidance: Float[Tensor, "B N P"], skip: int
    ) -> Float[Tensor, "B S-{skip} W"]:
        count, patches = guidance.shape[1:]
        first_instance = tokens.shape[1] - count
        q, k, v = self._project(tokens, skip)
        streams = []
        if skip < first_instance:
            image = (q[:, :, : first_instance - skip], k[:, :, :first_instance], v[:, :, :first_instance])
            streams.append(F.scaled_dot_product_attention(*image))
        query = q[:, :, first_instance - skip :] * q.shape[-1] ** -0.5
        on_patches = query @ k[:, :, :patches].mT + guidance[:, None]
        on_itself = (query * k[:, :, first_instance:]).sum(-1, keepdim=True)
        attention = torch.cat([on_patches, on_itself], -1).softmax(-1).to(v.dtype)
        seen, itself = attention.split([patches, 1], -1)
        streams.append(seen @ v[:, :, :patches] + itself * v[:, :, first_instance:])
        return torch.cat(streams, 2).transpose(1, 2).flatten(2)

    def _project(self, tokens: Float[Tensor, "B S W"], skip: int) -> tuple[Tensor, Tensor, Tensor]:
        """Returns queries [B, heads, S - skip, d], keys and values [B, heads, S, d]."""
        if not skip:
            q, k, v = self._heads(self.query_key_value(tokens), 3)
            return q, k, v
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        assert bias is not None
        width = tokens.shape[-1]
        (q,) = self._heads(F.linear(tokens[:, skip:], weight[:width], bias[:width]), 1)
        k, v = self._heads(F.linear(tokens, weight[width:], bias[width:]), 2)
        return q, k, v

    def _heads(self, x: Float[Tensor, "B S _"], parts: int) -> tuple[Tensor, ...]:
        heads: tuple[Tensor, ...] = x.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        return heads


class PatchProjection(nn.Module):
    """CLIP's linear projection of each patch."""

    def __init__(self, weight: Float[Tensor, "C 3 p p"]) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.weight: Tensor

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Returns the patch tokens on their grid."""
        return F.conv2d(pixels, self.weight, stride=self.weight.shape[-1])


def build_stem(kind: str, weights: Weights, tower: VisionTowerConfig) -> nn.Module:
    """Builds what turns pixels into patch tokens; `ClipConfig.stem` names the kinds."""
    if kind == "patches":
        return PatchProjection(weights["weight"])
    stem = ConvolutionalStem(tower.width, tower.patch_size)
    stem.load_state_dict(weights.state_dict())
    return stem.eval().requires_grad_(False)
