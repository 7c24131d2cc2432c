"""The config of an InstFormer, its presets, and its JSON form."""

import dataclasses
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from openvis_model.clip import ClipConfig, check_names
from openvis_model.mask_proposal import MaskProposalConfig, by_field
from openvis_model.options import Classifier, InstClipConfig, RolloutTrackerConfig
from openvis_model.proposal_networks import check_mask_proposal

OUT_FEATURES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
SWIN = {"model_type": "swin", "patch_size": 4, "mlp_ratio": 4.0, "qkv_bias": True, "drop_path_rate": 0.3}
BACKBONES: dict[str, dict[str, Any]] = {
    "resnet50": {
        "model_type": "resnet",
        "embedding_size": 64,
        "hidden_sizes": [256, 512, 1024, 2048],
        "depths": [3, 4, 6, 3],
        "layer_type": "bottleneck",
    },
    "swin_tiny": SWIN | {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "swin_small": SWIN | {"embed_dim": 96, "depths": [2, 2, 18, 2], "num_heads": [3, 6, 12, 24], "window_size": 7},
    "swin_base": SWIN | {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12},
    "swin_large": SWIN | {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12},
}
"""Backbones of the original Mask2Former checkpoints, as `transformers` describes them."""


@dataclass(frozen=True, kw_only=True)
class InstFormerConfig:
    """The whole model.

    Every row of the paper's Tables 4, 5 and 6 is a value of this config, of `AssociationConfig`, or of
    `InstanceObjectiveConfig` (the weight of the margin loss).

    Attributes:
        short_side: shorter side of the frames as both networks see them, and as labelling decodes them, pixels. A
            proposal network with a square input resizes them once more.
        classifier_short_side: the same as the classifier sees them, if that is less. Null takes `short_side`.
        mask_proposal: the mask proposal network.
        clip: the CLIP that the classifier uses.
        classifier: `inst_clip` (the paper's) or `crop_clip` (N masked crops through CLIP).
        inst_clip: variants of InstCLIP.
        rollout_tracker: variants of the rollout tracker.

    Raises:
        ValueError: for a value out of range, or one that `transformers` refuses for the network.
    """

    short_side: int
    classifier_short_side: int | None = None
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
        if not 32 <= self.classifier_side <= self.short_side:
            raise ValueError(
                f"classifier_short_side: expected null, or from 32 pixels to short_side ({self.short_side}), for which "
                f"frames are decoded, got {self.classifier_short_side}"
            )
        check_mask_proposal(self.mask_proposal)

    @property
    def classifier_side(self) -> int:
        """Shorter side of the frames as the classifier sees them, pixels."""
        return self.short_side if self.classifier_short_side is None else self.classifier_short_side

    def to_dict(self) -> dict[str, Any]:
        """Converts the config to plain values, for JSON; a field that is None is left out."""
        values = dataclasses.asdict(self, dict_factory=lambda items: {k: v for k, v in items if v is not None})
        return values | {"mask_proposal": self.mask_proposal.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "InstFormerConfig":
        """Builds a config from what `to_dict` returned.

        Raises:
            ValueError: for an unknown or missing field, or a value of another type or out of range.
        """
        if isinstance(proposal := values.get("mask_proposal"), dict):
            values = values | {"mask_proposal": by_field(proposal)}
        config: InstFormerConfig = _build(cls, values, "config")
        return config


def paper(backbone: str = "resnet50") -> InstFormerConfig:
    """Returns the paper's model: Mask2Former with 100 queries of width 256, and OpenAI's ViT-B/32.

    Sizes are those of the released Mask2Former checkpoints (Cheng et al. 2022); the one with `swin_large` has 200
    queries.

    Args:
        backbone: `resnet50` (the paper's), or a Swin transformer: `swin_tiny`, `swin_small`, `swin_base`, `swin_large`.

    Raises:
        ValueError: for an unknown backbone.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"backbone: unknown value {backbone!r}; choose from {tuple(BACKBONES)}")
    return InstFormerConfig(
        short_side=384,
        mask_proposal=MaskProposalConfig(
            network="mask2former",
            architecture={
                "backbone_config": BACKBONES[backbone] | OUT_FEATURES,
                "num_labels": 80,
                "num_queries": 200 if backbone == "swin_large" else 100,
                "hidden_dim": 256,
                "feature_size": 256,
                "mask_feature_size": 256,
                "encoder_feedforward_dim": 1024,
                "dim_feedforward": 2048,
                "encoder_layers": 6,
                "decoder_layers": 10,  # the prediction from the bare queries counts as one
                "num_attention_heads": 8,
            },
        ),
        clip=ClipConfig(model="ViT-B-32-quickgelu"),
    )


def mini(words: Sequence[str]) -> InstFormerConfig:
    """Returns a small but complete model for laptops and tests: 16 queries, CLIP of 2.4 M parameters.

    Args:
        words: every word that its CLIP must know, including the words of the prompts.

    Raises:
        ValueError: without words.
    """
    if isinstance(words, str) or not words:
        raise ValueError(f"words: expected a tuple of words, got {words!r}; use vocabulary.prompt_words of some names")
    backbone = {
        "model_type": "resnet",
        "embedding_size": 32,
        "hidden_sizes": [32, 64, 96, 128],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    }
    return InstFormerConfig(
        short_side=128,
        classifier_short_side=96,  # proposals gain from larger frames, names do not
        mask_proposal=MaskProposalConfig(
            network="mask2former",
            architecture={
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
                "init_logit_scale": math.log(20),
            },
            stem="convolutional",
            words=tuple(words),
            picture_size=48,
        ),
    )


def _build(kind: Any, value: Any, name: str) -> Any:
    """Builds a value of a type hint from plain values: dataclasses from dicts, also nested ones, tuples from lists."""
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        hints = typing.get_type_hints(kind)
        check_names(value, hints, name)
        required = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
        if missing := sorted(required - set(value)):
            raise ValueError(f"{name}: missing {', '.join(missing)}")
        return kind(**{key: _build(hints[key], item, f"{name}.{key}") for key, item in value.items()})
    if type(None) in (options := get_args(kind)):  # an option that may be left out
        return None if value is None else _build(options[0], value, name)
    plain = typing.get_origin(kind) or kind
    if plain is Literal:
        return value  # the dataclass that owns the field checks it
    if plain is tuple:
        return _build_tuple(get_args(kind), value, name)
    accepted = (int, float) if plain is float else (plain,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and plain is not bool):
        raise ValueError(f"{name}: expected {plain.__name__}, got {value!r}; write a value of that type")
    return value


def _build_tuple(kinds: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name}: expected a list, got {value!r}; write a list")
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise ValueError(f"{name}: expected {len(kinds)} values, got {len(value)}; write {len(kinds)}")
    return tuple(
        _build(kind, item, f"{name}[{index}]") for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )
