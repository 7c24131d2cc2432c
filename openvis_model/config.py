"""What an InstFormer is built from, its presets, and its form as JSON."""

import dataclasses
import difflib
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from openvis_model.clip import ClipConfig
from openvis_model.inst_clip import InstClipConfig
from openvis_model.mask_proposal import MaskProposalConfig
from openvis_model.rollout_tracker import RolloutTrackerConfig

Classifier = Literal["inst_clip", "crop_clip"]


@dataclass(frozen=True, kw_only=True)
class InstFormerConfig:
    """The whole model; every row of the paper's Tables 4, 5 and 6 is a value in here or of `AssociationConfig`.

    Attributes:
        short_side: working size of the frames in pixels, for both networks.
        mask_proposal: the mask proposal network.
        clip: the CLIP under the classifier.
        classifier: `inst_clip` (the paper's) or `crop_clip` (N masked crops through CLIP).
        inst_clip: InstCLIP's variants.
        rollout_tracker: the tracker's variants.
    """

    short_side: int
    mask_proposal: MaskProposalConfig
    clip: ClipConfig
    classifier: Classifier = "inst_clip"
    inst_clip: InstClipConfig = field(default_factory=InstClipConfig)
    rollout_tracker: RolloutTrackerConfig = field(default_factory=RolloutTrackerConfig)

    def __post_init__(self) -> None:
        if self.classifier not in get_args(Classifier):
            raise ValueError(f"classifier: unknown value {self.classifier!r}; choose from {get_args(Classifier)}")
        if self.short_side < 32:
            raise ValueError(f"short_side: expected at least 32 pixels, got {self.short_side}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "InstFormerConfig":
        """The inverse of `to_dict`.

        Raises:
            ValueError: for a field that does not exist or is missing, or a value that its owner refuses.
        """
        config: InstFormerConfig = _build(cls, values, "config")
        return config


def paper(backbone: str = "resnet50") -> InstFormerConfig:
    """The paper's model: Mask2Former with 100 queries of width 256, ViT-B/32 with OpenAI's weights.

    Args:
        backbone: `resnet50` (the paper's), or a Swin transformer: `swin_tiny`, `swin_small`, `swin_base`, `swin_large`.

    Raises:
        ValueError: for another backbone.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone: unknown value {backbone!r}; choose from {tuple(BACKBONES)}")
    return InstFormerConfig(
        short_side=384,
        mask_proposal=MaskProposalConfig(
            mask2former={"backbone_config": BACKBONES[backbone] | OUT_FEATURES, "num_labels": 80}
        ),
        clip=ClipConfig(model="ViT-B-32-quickgelu"),
    )


def mini(words: tuple[str, ...]) -> InstFormerConfig:
    """A real but small model, for laptops and tests: 96-pixel frames, 16 queries, a CLIP of 2.4 M parameters.

    Args:
        words: every word that its CLIP knows, those of the prompts included.
    """
    backbone = {
        "model_type": "resnet",
        "embedding_size": 32,
        "hidden_sizes": [32, 64, 96, 128],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    }
    return InstFormerConfig(
        short_side=96,
        mask_proposal=MaskProposalConfig(
            mask2former={
                "backbone_config": backbone | OUT_FEATURES,
                "num_labels": 1,
                "num_queries": 16,
                "hidden_dim": 64,
                "feature_size": 64,
                "mask_feature_size": 64,
                "encoder_feedforward_dim": 128,
                "dim_feedforward": 256,
                "encoder_layers": 2,
                "decoder_layers": 4,
                "num_attention_heads": 4,
            },
            freeze_batch_norm=False,
        ),
        clip=ClipConfig(
            architecture={
                "embed_dim": 128,
                "vision_cfg": {"image_size": 96, "patch_size": 8, "width": 192, "layers": 4, "head_width": 48},
                "text_cfg": {
                    "context_length": 16,
                    "vocab_size": len(words) + 3,
                    "width": 128,
                    "heads": 4,
                    "layers": 2,
                },
            },
            words=words,
        ),
    )


OUT_FEATURES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
BACKBONES: dict[str, dict[str, Any]] = {
    "resnet50": {"model_type": "resnet"},
    "swin_tiny": {"model_type": "swin", "embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]},
    "swin_small": {"model_type": "swin", "embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24]},
    "swin_base": {
        "model_type": "swin",
        "embed_dim": 128,
        "depths": [2, 2, 18, 2],
        "num_heads": [4, 8, 16, 32],
        "window_size": 12,
    },
    "swin_large": {
        "model_type": "swin",
        "embed_dim": 192,
        "depths": [2, 2, 18, 2],
        "num_heads": [6, 12, 24, 48],
        "window_size": 12,
    },
}
"""Backbones of the original Mask2Former checkpoints, as `transformers` describes them."""


def _build(kind: Any, value: Any, name: str) -> Any:
    """A dataclass from plain values, nested ones included; lists become tuples where the field is one."""
    if not dataclasses.is_dataclass(kind):
        return tuple(value) if typing.get_origin(kind) is tuple and isinstance(value, list) else value
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected fields, got {value!r}")
    assert isinstance(kind, type)
    hints = typing.get_type_hints(kind)
    for key in value:
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            raise ValueError(f"{name}.{key}: no such field{f'; did you mean {close[0]!r}?' if close else ''}")
    required = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
    if missing := sorted(required - set(value)):
        raise ValueError(f"{name}: missing {', '.join(missing)}")
    return kind(**{key: _build(hints[key], item, f"{name}.{key}") for key, item in value.items()})
