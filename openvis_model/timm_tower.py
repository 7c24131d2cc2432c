"""Vision transformers that open_clip takes from timm: those of EVA-02, PE-Core and SigLIP."""

from collections.abc import Iterable
from typing import Any

from jaxtyping import Float
from open_clip.timm_model import TimmModel
from timm.layers import AttentionPoolLatent, RotaryEmbeddingCat, build_rotary_pos_embed
from timm.models.eva import Eva, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from openvis_model.guided_attention import GuidedPool, InstanceGuidanceAttention, Layout, Rotation
from openvis_model.guided_tower import GuidedTower, placed

_PARTS = ("q_proj", "k_proj", "v_proj")

ATTENTION: Layout = {
    **{f"qkv.{kind}": tuple(f"{part}.{kind}" for part in _PARTS) for kind in ("weight", "bias")},
    **{f"{part}.{kind}": (f"{part}.{kind}",) for part in _PARTS for kind in ("weight", "bias")},
    **{f"proj.{kind}": (f"out_proj.{kind}",) for kind in ("weight", "bias")},
    "q_bias": ("q_proj.bias",),
    "v_bias": ("v_proj.bias",),
}
"""Names of the weights of timm's attention layers; each has some of them."""

POOL: Layout = {
    **{f"q.{kind}": (f"q_proj.{kind}",) for kind in ("weight", "bias")},
    **{f"kv.{kind}": (f"k_proj.{kind}", f"v_proj.{kind}") for kind in ("weight", "bias")},
    **{f"proj.{kind}": (f"out_proj.{kind}",) for kind in ("weight", "bias")},
}
"""Names of the weights of timm's attention-pooling head."""


class TimmTower(GuidedTower):
    """A trunk of timm, with a class token, an attention-pooling head, or both.

    | model | class token | head | positions | blocks |
    |---|---|---|---|---|
    | EVA-02 | yes | projection of the class token | learned; patches' queries and keys rotated | SwiGLU, inner norms |
    | PE-Core | yes, except bigG | attention pooling | learned, and rotated | GELU |
    | SigLIP, SigLIP 2 | no | attention pooling | learned | GELU |
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__(visual)
        trunk = self.trunk = check_trunk(visual.trunk)
        attention = trunk.blocks[0].attn
        self.patch_size = trunk.patch_embed.patch_size[0]
        projection = getattr(visual.head, "proj", trunk.head)
        self.embedding_width = getattr(projection, "out_features", trunk.num_features)
        self.heads, self.activation = attention.num_heads, type(trunk.blocks[0].mlp.act).__name__
        if trunk.attn_pool is None:
            self.guidable = ("trunk",)
        else:
            self.guidable = ("head",) if trunk.cls_token is None else ("trunk_and_head", "head")

    @staticmethod
    def claims(visual: nn.Module) -> bool:
        """Returns whether a vision transformer is one of these."""
        return isinstance(visual, TimmModel) and isinstance(visual.trunk, Eva | VisionTransformer)

    @property
    def class_token(self) -> Float[Tensor, " W"] | None:
        """The class token with its position, which SigLIP lacks."""
        if self.trunk.cls_token is None:
            return None
        token: Tensor = self.trunk.cls_token[0, 0] + self.trunk.pos_embed[0, 0]
        return token

    @property
    def pool(self) -> GuidedPool | None:
        """The attention-pooling head, once its attention is split, which EVA-02 lacks."""
        pool: GuidedPool | None = self.trunk.attn_pool
        return pool

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """The transformer blocks."""
        blocks: Iterable[nn.Module] = self.trunk.blocks
        return blocks

    def split_attention(self) -> None:
        """Replaces every attention layer, that of the head included, by one that knows instances."""
        for block in self.trunk.blocks:
            norm = None if isinstance(block.attn.norm, nn.Identity) else block.attn.norm
            block.attn = InstanceGuidanceAttention(block.attn, ATTENTION, norm)
        if self.trunk.attn_pool is not None:
            self.trunk.attn_pool = GuidedPool(self.trunk.attn_pool, POOL)

    def patches(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Returns the patch tokens on their grid, with positions."""
        patches: Tensor = self.trunk.patch_embed.proj(pixels)
        first = 0 if self.trunk.cls_token is None else 1
        return placed(patches, self.trunk.pos_embed[0, first:].unflatten(0, self.trunk.patch_embed.grid_size))

    def rotation(self, grid: tuple[int, int]) -> Rotation | None:
        """Returns the rotation of the patches of a grid, in EVA-02 and PE-Core."""
        rope = getattr(self.trunk, "rope", None)
        if rope is None:
            return None
        sine, cosine = build_rotary_pos_embed(
            list(grid),
            bands=rope.bands,
            in_pixels=rope.in_pixels,
            ref_feat_shape=rope.ref_feat_shape,
            grid_offset=rope.grid_offset,
            grid_indexing=rope.grid_indexing,
        )
        return sine, cosine

    def norm_before(self, tokens: Float[Tensor, "B S W"]) -> Float[Tensor, "B S W"]:
        """Applies the norm in front of the blocks, which PE-Core has."""
        normed: Tensor = self.trunk.norm_pre(tokens)
        return normed

    def block(
        self,
        block: Any,
        tokens: Float[Tensor, "B S W"],
        guidance: Float[Tensor, "B N P"],
        skip: int,
        rotation: Rotation | None,
    ) -> Float[Tensor, "B S-{skip} W"]:
        """Applies a block."""
        attend, transform, norm_1, norm_2 = block.attn, block.mlp, block.norm1, block.norm2
        if isinstance(block, EvaBlockPostNorm):
            tokens = tokens[:, skip:] + norm_1(attend(tokens, guidance, skip, rotation))
            out: Tensor = tokens + norm_2(transform(tokens))
        else:
            tokens = tokens[:, skip:] + attend(norm_1(tokens), guidance, skip, rotation)
            out = tokens + transform(norm_2(tokens))
        return out

    def norm_after(self, tokens: Float[Tensor, "B S W"]) -> Float[Tensor, "B S W"]:
        """Applies the norm behind the blocks."""
        normed: Tensor = self.trunk.norm(tokens)
        return normed

    def project(self, tokens: Float[Tensor, "B M W"]) -> Float[Tensor, "B M D"]:
        """Projects tokens into the joint embedding space, unless they are in it."""
        embeddings: Tensor = self.visual.head(self.trunk.head(self.trunk.fc_norm(tokens)))  # type: ignore[operator]
        return embeddings


def check_trunk(trunk: Any) -> Any:
    """Checks that a trunk has only what `TimmTower` computes, and returns it.

    Raises:
        ValueError: names what differs, and a model to use instead.
    """
    blocks, rope = list(trunk.blocks), getattr(trunk, "rope", None)
    attentions = [block.attn for block in blocks]
    pool = trunk.attn_pool
    unsupported = {
        "another kind of block": not all(type(block) in (EvaBlock, EvaBlockPostNorm, Block) for block in blocks),
        "layer scale": not all(
            getattr(block, "gamma_1", None) is None and isinstance(getattr(block, "ls1", nn.Identity()), nn.Identity)
            for block in blocks
        ),
        "normed queries and keys": not all(isinstance(attention.q_norm, nn.Identity) for attention in attentions),
        "gated attention": not all(getattr(attention, "gate", None) is None for attention in attentions),
        "grouped queries": any(getattr(attention, "num_kv_groups", 1) > 1 for attention in attentions),
        "registers of its own": getattr(trunk, "reg_token", None) is not None,
        "no learned positions": trunk.pos_embed is None or trunk.no_embed_class,
        "other rotary positions": rope is not None
        and (type(rope) is not RotaryEmbeddingCat or getattr(rope, "rotate_half", False)),
        f"pooling {trunk.global_pool!r}": trunk.global_pool not in ("token", "map"),
        "another attention pooling": pool is not None
        and (type(pool) is not AttentionPoolLatent or pool.latent_len != 1 or pool.mlp is None),
        "a class token that its head ignores": isinstance(trunk, VisionTransformer)
        and pool is not None
        and trunk.cls_token is not None,
        "non-square patches": len(set(trunk.patch_embed.patch_size)) > 1,
    }
    for name, present in unsupported.items():
        if present:
            raise ValueError(
                f"clip: {name} in its vision transformer is not supported; use e.g. EVA02-B-16, PE-Core-B-16 or "
                "ViT-B-16-SigLIP2"
            )
    return trunk
