"""The sizes of CLIP's two towers, as open_clip describes them; reading them needs no open_clip."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

PLAIN_TEXT: Mapping[str, object] = {"pool_type": "argmax", "no_causal_mask": False}
"""Fields of `text_cfg` that may be given, but have one value in a CLIP."""

SIGLIP_TEXT: Mapping[str, object] = {"pool_type": "last", "no_causal_mask": True}
"""The values of the same fields in a SigLIP; only there, the tokenizer may be one of the Hugging Face hub."""

PLAIN_VISION: Mapping[str, object] = {"pool_type": "tok", "no_ln_pre": False, "final_ln_after_pool": False}
"""Fields of `vision_cfg` that may be given, but have one value in a CLIP."""


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig:
    """The size of a text tower; the fields and their defaults are those of open_clip's `text_cfg`.

    Attributes:
        embed_dim: width of the embeddings.
        quick_gelu: whether the activation is OpenAI's x · σ(1.702 x).
        context_length: tokens per text.
        vocab_size: rows of the embedding table.
        width: width of the tokens.
        heads: attention heads.
        layers: transformer blocks.
        mlp_ratio: width of a block's hidden layer, as a multiple of `width`.
        causal: whether tokens see those before them alone, and the embedding is that of the end of text, as in CLIP; in
            SigLIP tokens see all others, padding included, and the embedding is that of the last one.
        proj_bias: whether the projection of the embedding has a bias.
        norm_eps: what norms add to the variance.
        gelu: how GELU is approximated: `none` or `tanh`.
    """

    embed_dim: int
    quick_gelu: bool = False
    context_length: int = 77
    vocab_size: int = 49408
    width: int = 512
    heads: int = 8
    layers: int = 12
    mlp_ratio: float = 4.0
    causal: bool = True
    proj_bias: bool = False
    norm_eps: float = 1e-5
    gelu: str = "none"

    @classmethod
    def of(cls, architecture: Mapping[str, Any]) -> "TextTowerConfig":
        """Reads the size from an open_clip model's architecture.

        Raises:
            ValueError: for a text tower that is neither CLIP's nor SigLIP's: another pooling, tokenizer, or kind of
                block.
        """
        text = dict(architecture.get("text_cfg", {}))
        siglip = all(text.get(name) == value for name, value in SIGLIP_TEXT.items())
        if siglip:
            for name in ("hf_tokenizer_name", "tokenizer_kwargs"):
                text.pop(name, None)
        norm, activation = text.pop("norm_kwargs", None) or {}, text.pop("act_kwargs", None) or {}
        text |= {f"norm_{name}": value for name, value in norm.items()}
        text |= {"gelu" if name == "approximate" else f"act_{name}": value for name, value in activation.items()}
        plain = SIGLIP_TEXT if siglip else PLAIN_TEXT
        sizes = _sizes(cls, {**architecture, "text_cfg": text}, "text_cfg", plain, "text tower and tokenizer")
        return cls(embed_dim=architecture["embed_dim"], causal=not siglip, **sizes)

    @property
    def special_tokens(self) -> int:
        """Tokens that a tokenizer adds to a text: start and end, or the end alone."""
        return 2 if self.causal else 1


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
        return cls(**_sizes(cls, architecture, "vision_cfg", PLAIN_VISION, "vision transformer"))


def _sizes(
    kind: Any, architecture: Mapping[str, Any], part: str, plain: Mapping[str, object], wanted: str
) -> dict[str, Any]:
    """Returns the fields of a tower.

    Raises:
        ValueError: for a field that a plain tower does not have.
    """
    known = {field.name for field in fields(kind)}
    sizes = dict(architecture.get(part, {}))
    for name in [name for name in sizes if name not in known]:
        value = sizes.pop(name)
        if name not in plain or value != plain[name]:
            raise ValueError(
                f"clip: expected CLIP's own {wanted}, got {part}.{name}={value!r}; use a model such as ViT-B-32"
            )
    return {"quick_gelu": architecture.get("quick_gelu", False), **sizes}


def is_timm(architecture: Mapping[str, Any]) -> bool:
    """Returns whether a CLIP's vision tower comes from timm."""
    return bool(architecture.get("vision_cfg", {}).get("timm_model_name"))
