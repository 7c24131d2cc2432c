"""The size of CLIP's vision tower; reading it needs no open_clip."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

PLAIN: Mapping[str, object] = {"pool_type": "tok", "no_ln_pre": False, "final_ln_after_pool": False}
"""Fields of open_clip's `vision_cfg` that may be given, but have one value in a CLIP."""


@dataclass(frozen=True, kw_only=True)
class VisionTowerConfig:
    """The size of a vision transformer; the fields and their defaults are those of open_clip's `vision_cfg`.

    Attributes:
        quick_gelu: whether the activation is OpenAI's x · σ(1.702 x).
        image_size: side of the images that it was trained with, pixels.
        patch_size: side of a patch, pixels.
        width: width of the tokens.
        layers: transformer blocks.
        head_width: width of an attention head.
        mlp_ratio: width of a block's hidden layer, as a multiple of `width`.
    """

    quick_gelu: bool = False
    image_size: int = 224
    patch_size: int = 16
    width: int = 768
    layers: int = 12
    head_width: int = 64
    mlp_ratio: float = 4.0

    @classmethod
    def of(cls, architecture: Mapping[str, Any]) -> "VisionTowerConfig":
        """Reads the size from an open_clip model's architecture.

        Raises:
            ValueError: for a vision tower that is not CLIP's vision transformer.
        """
        known = {field.name for field in fields(cls)}
        sizes = dict(architecture["vision_cfg"])
        for name in [name for name in sizes if name not in known]:
            value = sizes.pop(name)
            if name not in PLAIN or value != PLAIN[name]:
                raise ValueError(
                    f"clip: expected CLIP's own vision transformer, got vision_cfg.{name}={value!r}; "
                    "use a model such as ViT-B-32"
                )
        return cls(quick_gelu=architecture.get("quick_gelu", False), **sizes)
