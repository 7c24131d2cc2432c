"""InstCLIP: embeds every instance of a frame in one forward pass of CLIP (OpenVIS, Fig. 2b, Eq. 3).

The token sequence of a frame is [P patches, register, N instance tokens]. Patches and register never attend to instance
tokens, so Eq. 3 is computed as two exact streams instead of one dense (1+N+P)² mask: patches and register attend to
each other as in plain CLIP, and each instance token attends to the guided patches and to itself.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import VisionTransformer
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from openvis_model.frames import to_pixels
from openvis_model.guidance import instance_guidance
from openvis_model.options import LORA_TARGETS, InstClipConfig


class InstanceGuidanceAttention(nn.Module):
    """Multi-head attention in two streams, with the weights of one of CLIP's attention layers (OpenVIS, Eq. 3).

    Query, key and value have separate projections, which CLIP fuses, so that adapters apply to query and value only.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        width = attention.embed_dim
        self.heads = attention.num_heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)
        state = attention.state_dict()
        with torch.no_grad():
            for kind in ("weight", "bias"):
                fused = state[f"in_proj_{kind}"].chunk(3)
                for projection, part in zip((self.q_proj, self.k_proj, self.v_proj), fused, strict=True):
                    getattr(projection, kind).copy_(part)
        self.out_proj.load_state_dict(attention.out_proj.state_dict())

    def fused(self) -> dict[str, Tensor]:
        """Returns the state dict of CLIP's fused attention layer, without adapters."""
        projections = [
            projection.get_base_layer() if isinstance(projection, LoraLayer) else projection
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        ]
        return {
            "in_proj_weight": torch.cat([projection.weight for projection in projections]),
            "in_proj_bias": torch.cat([projection.bias for projection in projections]),
            "out_proj.weight": self.out_proj.weight,
            "out_proj.bias": self.out_proj.bias,
        }

    def forward(
        self, tokens: Float[Tensor, "B S W"], guidance: Float[Tensor, "B N P"], skip: int
    ) -> Float[Tensor, "B S-{skip} W"]:
        """Attends from all tokens but the first `skip` (patches whose output is unused) to the whole sequence.

        Args:
            tokens: S = P + R + N tokens: patches, R registers (0 or 1), instances.
            guidance: added to the attention scores of instance tokens on patches.
            skip: number of leading tokens without output, at most P.
        """
        instances, patches = guidance.shape[1:]
        first_instance = tokens.shape[1] - instances
        q = self._heads(self.q_proj(tokens[:, skip:]))
        k = self._heads(self.k_proj(tokens))
        v = self._heads(self.v_proj(tokens))

        q_image, q_instance = q.split([first_instance - skip, instances], dim=2)
        k_image, k_instance = k.split([first_instance, instances], dim=2)
        v_image, v_instance = v.split([first_instance, instances], dim=2)
        image = F.scaled_dot_product_attention(q_image, k_image, v_image)

        # An instance attends to all patches and itself. Its own key reuses the register's column among the image keys,
        # which saves a copy of all keys and values; without a register, that column is added.
        if first_instance == patches:
            k_image, v_image = (F.pad(x, (0, 0, 0, 1)) for x in (k_image, v_image))
        q_instance = q_instance * q.shape[-1] ** -0.5
        scores = q_instance @ k_image.mT + F.pad(guidance, (0, 1))[:, None]
        scores[..., -1] = (q_instance * k_instance).sum(-1)
        attention = scores.softmax(-1).to(v.dtype)
        instance = attention @ v_image + attention[..., -1:] * (v_instance - v_image[:, :, -1:])

        heads = torch.cat([image.transpose(1, 2), instance.transpose(1, 2)], dim=1)
        out: Tensor = self.out_proj(heads.flatten(2))
        return out

    def _heads(self, x: Float[Tensor, "B S W"]) -> Float[Tensor, "B heads S d"]:
        heads: Tensor = x.unflatten(2, (self.heads, -1))
        return heads.transpose(1, 2)


class InstClip(nn.Module):
    """CLIP's vision transformer with instance tokens, a register and LoRA adapters.

    Instance tokens and register are initialised as copies of CLIP's class token, and adapters as zero. Then the
    register's embedding equals CLIP's image embedding, and so does that of an instance token with zero guidance.

    Args:
        config: guidance, register, adapters.
        visual: the vision transformer of an `open_clip` model; it is modified in place and must not be used elsewhere.
        num_queries: N, one instance token per instance query of the mask proposal network.
        short_side: working size of the frames, pixels.

    Raises:
        ValueError: if `visual` is not a plain CLIP vision transformer.
    """

    def __init__(self, config: InstClipConfig, visual: nn.Module, *, num_queries: int, short_side: int) -> None:
        super().__init__()
        self.visual: VisionTransformer = check_vision_transformer(visual)
        self.config = config
        self.short_side = short_side
        self.patch_size: int = self.visual.patch_size[0]
        class_token = (self.visual.class_embedding + self.visual.positional_embedding[0]).detach()
        self.instance_tokens = nn.Parameter(class_token.repeat(num_queries, 1))
        self.register_token = nn.Parameter(class_token[None].clone()) if config.register else None
        mean, std = pixel_statistics(visual)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.mean: Tensor
        self.std: Tensor

        for block in self.visual.transformer.resblocks:
            block.attn = InstanceGuidanceAttention(block.attn)
        lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=list(LORA_TARGETS))
        inject_adapter_in_model(lora, self.visual)

    @property
    def embedding_width(self) -> int:
        """D, the width of CLIP's joint embedding space."""
        return int(self.visual.proj.shape[1])

    def forward(
        self, frames: Tensor, mask_logits: Float[Tensor, "B N h w"], query_index: Int[Tensor, "B N"]
    ) -> Float[Tensor, "B N D"]:
        """Embeds instances: one unit-norm instance token for each mask.

        Instance tokens do not attend to each other, so a result does not depend on the other masks.

        Args:
            frames: uint8 [B, H, W, 3].
            mask_logits: the masks to embed, at any resolution, covering the frame.
            query_index: the instance query of each mask, which selects its learnable instance token.

        Raises:
            ValueError: for frames that `check_frames` refuses.
        """
        return F.normalize(self.encode(frames, mask_logits, query_index)[0], dim=-1)

    def encode(
        self, frames: Tensor, mask_logits: Float[Tensor, "B N h w"], query_index: Int[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B R D"]]:
        """Returns instance tokens and register in CLIP's space, before normalisation.

        R is 1 with a register and 0 without.
        """
        pixels = (to_pixels(frames, short_side=self.short_side, divisor=self.patch_size) - self.mean) / self.std
        grid = (pixels.shape[2] // self.patch_size, pixels.shape[3] // self.patch_size)
        guidance = instance_guidance(
            mask_logits, grid, guidance=self.config.guidance, resampling=self.config.resampling
        )
        tokens = torch.cat([*self._image_tokens(pixels), self.instance_tokens[query_index]], dim=1)

        tokens = self.visual.ln_pre(tokens)
        blocks = self.visual.transformer.resblocks
        for block in blocks:
            # The patches' output of the last block is unused, so it is not computed.
            skip = grid[0] * grid[1] if block is blocks[-1] else 0
            tokens = tokens[:, skip:] + block.attn(block.ln_1(tokens), guidance, skip)
            tokens = tokens + block.mlp(block.ln_2(tokens))
        embeddings = self.visual.ln_post(tokens) @ self.visual.proj

        register, instances = embeddings.split([tokens.shape[1] - query_index.shape[1], query_index.shape[1]], dim=1)
        return instances, register

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Returns LoRA adapters, instance tokens and register; CLIP's own weights stay frozen."""
        tokens = [self.instance_tokens] if self.register_token is None else [self.instance_tokens, self.register_token]
        return tokens + [parameter for name, parameter in self.visual.named_parameters() if "lora_" in name]

    def _image_tokens(self, pixels: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        patches = self.visual.conv1(pixels)
        positions = self.visual.positional_embedding[1:].unflatten(0, self.visual.grid_size).permute(2, 0, 1)[None]
        if patches.shape[-2:] != positions.shape[-2:]:
            positions = F.interpolate(positions, size=patches.shape[-2:], mode="bicubic", antialias=True)
        tokens = [(patches + positions).flatten(2).mT]
        if self.register_token is not None:
            tokens.append(self.register_token.expand(len(pixels), 1, -1))
        return tokens


def check_vision_transformer(visual: nn.Module) -> VisionTransformer:
    """Checks that `visual` is the plain vision transformer of CLIP's ViT models, and returns it.

    Raises:
        ValueError: names what differs, and a model to use instead.
    """
    if not isinstance(visual, VisionTransformer):
        raise ValueError(f"clip: expected open_clip's vision transformer, got {type(visual).__name__}; use a ViT model")
    blocks = visual.transformer.resblocks
    unsupported = {
        "attention pooling": visual.attn_pool is not None,
        f"pool_type={visual.pool_type!r}": visual.pool_type != "tok",
        "custom attention": not all(isinstance(block.attn, nn.MultiheadAttention) for block in blocks),
        "layer scale": not all(isinstance(block.ls_1, nn.Identity) for block in blocks),
        "non-square patches": visual.patch_size[0] != visual.patch_size[1],
    }
    for name, present in unsupported.items():
        if present:
            raise ValueError(f"clip: {name} is not part of CLIP as the paper uses it; use a model such as ViT-B-32")
    return visual


def pixel_statistics(visual: nn.Module) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
    """Returns mean and standard deviation of RGB, in [0, 1], that a CLIP vision transformer was trained with."""
    mean = getattr(visual, "image_mean", None) or OPENAI_DATASET_MEAN
    std = getattr(visual, "image_std", None) or OPENAI_DATASET_STD
    return torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
