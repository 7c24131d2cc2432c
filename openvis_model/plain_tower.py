"""The vision transformer of CLIP's ViT models, as open_clip has it (OpenAI, LAION, DataComp, MetaCLIP)."""

from collections.abc import Iterable

from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from openvis_model.guided_attention import InstanceGuidanceAttention, Rotation
from openvis_model.guided_tower import GuidedTower, placed


class PlainTower(GuidedTower):
    """The paper's vision transformer: a class token, learned positions, and a projection of the class token."""

    guidable = ("trunk",)
    visual: VisionTransformer

    def __init__(self, visual: nn.Module) -> None:
        super().__init__(check_vision_transformer(visual))
        block = self.visual.transformer.resblocks[0]
        self.patch_size = self.visual.patch_size[0]
        self.embedding_width = int(self.visual.proj.shape[1])
        self.heads, self.activation = block.attn.num_heads, type(block.mlp.gelu).__name__

    @staticmethod
    def claims(visual: nn.Module) -> bool:
        """Returns whether a vision transformer is open_clip's own."""
        return isinstance(visual, VisionTransformer)

    @property
    def class_token(self) -> Float[Tensor, " W"]:
        """The class token with its position."""
        token: Tensor = self.visual.class_embedding + self.visual.positional_embedding[0]
        return token

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """The transformer blocks."""
        blocks: Iterable[nn.Module] = self.visual.transformer.resblocks
        return blocks

    def split_attention(self) -> None:
        """Replaces every attention layer by one that knows instances."""
        for block in self.visual.transformer.resblocks:
            block.attn = InstanceGuidanceAttention(block.attn)

    def patches(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Returns the patch tokens on their grid, with positions."""
        patches: Tensor = self.visual.conv1(pixels)
        return placed(patches, self.visual.positional_embedding[1:].unflatten(0, self.visual.grid_size))

    def rotation(self, grid: tuple[int, int]) -> Rotation | None:
        """Returns None: positions are added alone."""

    def norm_before(self, tokens: Float[Tensor, "B S W"]) -> Float[Tensor, "B S W"]:
        """Applies the norm in front of the blocks."""
        normed: Tensor = self.visual.ln_pre(tokens)
        return normed

    def block(
        self,
        block: nn.Module,
        tokens: Float[Tensor, "B S W"],
        guidance: Float[Tensor, "B N P"],
        skip: int,
        rotation: Rotation | None,
    ) -> Float[Tensor, "B S-{skip} W"]:
        """Applies a block."""
        tokens = tokens[:, skip:] + block.attn(block.ln_1(tokens), guidance, skip)  # type: ignore[operator]
        out: Tensor = tokens + block.mlp(block.ln_2(tokens))  # type: ignore[operator]
        return out

    def norm_after(self, tokens: Float[Tensor, "B S W"]) -> Float[Tensor, "B S W"]:
        """Applies the norm behind the blocks."""
        normed: Tensor = self.visual.ln_post(tokens)
        return normed

    def project(self, tokens: Float[Tensor, "B M W"]) -> Float[Tensor, "B M D"]:
        """Projects tokens into the joint embedding space."""
        embeddings: Tensor = tokens @ self.visual.proj
        return embeddings


def check_vision_transformer(visual: VisionTransformer) -> VisionTransformer:
    """Checks that `visual` is the plain vision transformer of CLIP's ViT models, and returns it.

    Raises:
        ValueError: names what differs, and a model to use instead.
    """
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
