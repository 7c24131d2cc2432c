"""What InstCLIP needs of a CLIP's vision transformer, whatever its kind."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openvis_model.by_size import BySize, Size
from openvis_model.guided_attention import GuidedPool, Rotation
from openvis_model.options import GuidedParts


class GuidedTower(ABC):
    """A vision transformer that instance tokens join, in its trunk, in its attention-pooling head, or in both.

    In the trunk, an instance token starts as the class token and sees guided patches and itself. In the head, it is a
    probe that starts as CLIP's own and sees guided patches and one token more: that of the trunk if instances have one
    there, otherwise the class token. With zero guidance, an instance is therefore embedded as the image.

    Args:
        visual: the vision transformer of an `open_clip` model.

    Attributes:
        visual: the same module.
        stem_name: where it makes patch tokens of pixels.
        guidable: the parts that masks can guide, the default first.
        patch_size: pixels.
        embedding_width: D, the width of CLIP's joint embedding space.
        heads: attention heads of a block.
        activation: name of the activation of a block.

    Raises:
        ValueError: if the transformer has a part that this kind of tower does not have; names it.
    """

    stem_name: ClassVar[str]
    guidable: tuple[GuidedParts, ...]
    patch_size: int
    embedding_width: int
    heads: int
    activation: str

    def __init__(self, visual: nn.Module) -> None:
        self.visual = visual
        self.by_size: BySize | None = None

    @staticmethod
    @abstractmethod
    def claims(visual: nn.Module) -> bool:
        """Returns whether a vision transformer is of this kind."""

    @property
    @abstractmethod
    def class_token(self) -> Float[Tensor, " W"] | None:
        """The class token with its position; None for a tower without."""

    @property
    def pool(self) -> GuidedPool | None:
        """The attention-pooling head, once its attention is split; None for a tower without."""
        return None

    @property
    @abstractmethod
    def blocks(self) -> Iterable[nn.Module]:
        """The transformer blocks."""

    @abstractmethod
    def split_attention(self) -> None:
        """Replaces every attention layer, that of the head included, by one that knows instances."""

    @property
    @abstractmethod
    def positions(self) -> Float[Tensor, "H W C"]:
        """The learned positions of the patches, on the grid that the CLIP was trained with."""

    @abstractmethod
    def rotation(self, grid: tuple[int, int]) -> Rotation | None:
        """Returns the rotation of the patches of a grid, in towers with rotary positions."""

    @abstractmethod
    def norm_before(self, tokens: Float[Tensor, "B S W"]) -> Float[Tensor, "B S W"]:
        """Applies the norm in front of the blocks, if there is one."""

    @abstractmethod
    def block(
        self,
        block: nn.Module,
        tokens: Float[Tensor, "B S W"],
        guidance: Float[Tensor, "B N P"],
        skip: int,
        rotation: Rotation | None,
    ) -> Float[Tensor, "B S-{skip} W"]:
        """Applies a block; the arguments are those of `InstanceGuidanceAttention`."""

    @abstractmethod
    def norm_after(self, tokens: Float[Tensor, "B S W"]) -> Float[Tensor, "B S W"]:
        """Applies the norm behind the blocks."""

    @abstractmethod
    def project(self, tokens: Float[Tensor, "B M W"]) -> Float[Tensor, "B M D"]:
        """Projects tokens into the joint embedding space."""

    @property
    def stem(self) -> nn.Module:
        """The part that makes patch tokens of pixels."""
        return self.visual.get_submodule(self.stem_name)

    def starts(self, guided: GuidedParts) -> dict[str, Float[Tensor, " W"]]:
        """Returns where the learned tokens of an instance start, by their names."""
        starts: dict[str, Tensor] = {}
        if guided != "head" and self.class_token is not None:
            starts["instance_tokens"] = self.class_token
        if guided != "trunk" and self.pool is not None:
            starts["instance_probes"] = self.pool.latent[0, 0]
        return starts

    def encode(
        self,
        pixels: Float[Tensor, "B 3 H W"],
        guidance: Float[Tensor, "B N P"],
        instances: Mapping[str, Float[Tensor, "B N C"]],
        register: Float[Tensor, "1 C"] | None,
    ) -> Float[Tensor, "B M D"]:
        """Embeds register and instances of B images.

        Args:
            pixels: normalised images.
            guidance: for each instance, what is added to its attention scores on patches.
            instances: the tokens of each instance; their names are those of `starts`.
            register: the token in the class token's place.
        """
        patches = self.stem(pixels)
        positions, rotation = self._on_grid((patches.shape[2], patches.shape[3]))
        return self._encode_maps(patches + positions, rotation, guidance, instances, register)

    def freeze(self) -> None:
        """Remembers positions and rotation of each grid from now on: the weights must not change any more."""
        self.by_size = BySize()

    def _on_grid(self, grid: Size) -> tuple[Float[Tensor, "1 C h w"], Rotation | None]:
        """Returns positions and rotation of the patches of a grid."""

        def make() -> tuple[Tensor, Rotation | None]:
            return resampled(self.positions, grid), self.rotation(grid)

        return make() if self.by_size is None else self.by_size((grid,), self.positions, make)

    def encode_patches(
        self,
        maps: Float[Tensor, "B C h w"],
        guidance: Float[Tensor, "B N P"],
        instances: Mapping[str, Float[Tensor, "B N C"]],
        register: Float[Tensor, "1 C"] | None,
    ) -> Float[Tensor, "B M D"]:
        """Embeds register and instances of B images, whose patch tokens are given on their grid, with positions."""
        return self._encode_maps(maps, self.rotation((maps.shape[2], maps.shape[3])), guidance, instances, register)

    def _encode_maps(
        self,
        maps: Float[Tensor, "B C h w"],
        rotation: Rotation | None,
        guidance: Float[Tensor, "B N P"],
        instances: Mapping[str, Float[Tensor, "B N C"]],
        register: Float[Tensor, "1 C"] | None,
    ) -> Float[Tensor, "B M D"]:
        patches = maps.shape[2] * maps.shape[3]
        joined, probes = instances.get("instance_tokens"), instances.get("instance_probes")
        sequence = [maps.flatten(2).mT, None if register is None else register.expand(len(maps), 1, -1), joined]
        tokens = self.norm_before(torch.cat([part for part in sequence if part is not None], dim=1))
        in_trunk = guidance[:, :0] if joined is None else guidance
        *first, last = self.blocks
        for block in first:
            tokens = self.block(block, tokens, in_trunk, 0, rotation)
        # Without a head that pools them, the patches' output of the last block is unused, so it is not computed.
        skip = patches if probes is None else 0
        tokens = self.norm_after(self.block(last, tokens, in_trunk, skip, rotation))
        if probes is not None:
            tokens = self._pooled(tokens[:, :patches], tokens[:, patches:], guidance, probes, joined is not None)
        return self.project(tokens)

    def _pooled(
        self,
        patches: Float[Tensor, "B P W"],
        others: Float[Tensor, "B O W"],
        guidance: Float[Tensor, "B N P"],
        probes: Float[Tensor, "B N W"],
        joined: bool,
    ) -> Float[Tensor, "B M W"]:
        """Pools the patches for register and instances; `others` are the tokens that these have in the trunk."""
        assert self.pool is not None
        N = probes.shape[1]
        R = others.shape[1] - N if joined else others.shape[1]
        own = others if joined else others.expand(-1, R + N, -1) if R else None
        probes = torch.cat([self.pool.latent.expand(len(probes), R, -1), probes], dim=1)
        pooled: Tensor = self.pool(probes, patches, F.pad(guidance, (0, 0, R, 0)), own)
        return pooled


def resampled(positions: Float[Tensor, "H W C"], grid: Sequence[int]) -> Float[Tensor, "1 C h w"]:
    """Resamples learned positions to a grid."""
    maps = positions.permute(2, 0, 1)[None]
    if maps.shape[-2:] != tuple(grid):
        maps = F.interpolate(maps, size=tuple(grid), mode="bicubic", antialias=True)
    return maps
