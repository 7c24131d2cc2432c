"""Options of training: losses, and what a training starts from. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from openvis_model.options import Classifier, InstClipConfig, RolloutTrackerConfig


@dataclass(frozen=True, kw_only=True)
class SetCriterionConfig:
    """Point sampling and weights of Mask2Former's set loss; defaults are those of Cheng et al. 2022.

    Attributes:
        num_points: points of a mask at which its loss is computed.
        oversample_ratio: candidates per point from which the most uncertain ones are chosen.
        importance_sample_ratio: fraction of the points that are chosen for uncertainty; the others are uniform.
        class_weight: weight of the objectness loss.
        mask_weight: weight of the binary cross-entropy of masks.
        dice_weight: weight of the dice loss of masks.
        box_weight: weight of the L1 distance of boxes, of networks that have boxes; RF-DETR's, as the next one.
        giou_weight: weight of the generalised IoU of boxes.
        no_object_weight: weight of unmatched queries in the objectness loss.
        unknown_weight: the same in frames of which not every object is annotated, as in LVIS: there, many unmatched
            queries are on objects.

    Raises:
        ValueError: for a value out of range.
    """

    num_points: int = 12544
    oversample_ratio: float = 3.0
    importance_sample_ratio: float = 0.75
    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    box_weight: float = 5.0
    giou_weight: float = 2.0
    no_object_weight: float = 0.1
    unknown_weight: float = 0.01

    def __post_init__(self) -> None:
        lowest = {"num_points": 1, "oversample_ratio": 1, "no_object_weight": 1e-6, "unknown_weight": 1e-6}
        highest = {"importance_sample_ratio": 1}
        for name, value in vars(self).items():
            low, high = lowest.get(name, 0), highest.get(name, 1e6)
            if not low <= value <= high:
                raise ValueError(f"{name}: expected {low} to {high:g}, got {value}")


Matching = Literal["frame", "clip"]


@dataclass(frozen=True, kw_only=True)
class InstanceObjectiveConfig:
    """Losses of stage 1.

    The paper specifies neither the alpha of Eq. 2 nor the weights of the two losses that it adds to Mask2Former's.

    Attributes:
        criterion: Mask2Former's set loss.
        margin: alpha of the margin loss (Eq. 2), a cosine.
        margin_weight: weight of the margin loss; 0 omits it (Table 4).
        classification_weight: weight of the classification loss; 0 trains the proposals alone and skips InstCLIP.
        train_proposals: whether the proposal network is trained too; if not, InstCLIP learns to name what the network
            finds as it is.
        matching: whether queries and objects are matched in each `frame` on its own, as Mask2Former does, or once for
            the whole `clip`: then an object must have one query in all frames, and queries come to stand for looks
            rather than places, which makes them better tracking tokens.

    Raises:
        ValueError: for an unknown matching, a margin that is not a cosine, a negative weight, or nothing to train.
    """

    criterion: SetCriterionConfig = field(default_factory=SetCriterionConfig)
    margin: float = 0.3
    margin_weight: float = 2.0
    classification_weight: float = 2.0
    train_proposals: bool = True
    matching: Matching = "frame"

    def __post_init__(self) -> None:
        if self.matching not in get_args(Matching):
            raise ValueError(f"matching: unknown value {self.matching!r}; choose from {get_args(Matching)}")
        if not (self.train_proposals or self.classification_weight):
            raise ValueError(
                "train_proposals: with a classification_weight of 0, it must be true; nothing is trained else"
            )
        if not -1 <= self.margin <= 1:
            raise ValueError(f"margin: expected a cosine, -1 to 1, got {self.margin}")
        for name in ("margin_weight", "classification_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")


Candidates = Literal["all", "annotated"]


@dataclass(frozen=True, kw_only=True)
class TrackingObjectiveConfig:
    """Loss of stage 2.

    Attributes:
        candidates: tokens among which Eq. 6 looks for the object's own: `all` tokens of the frame, one per instance
            query, as when tracking; `annotated` takes those that are matched to annotated objects alone, so a clip
            with one object teaches nothing.
        temperature: divisor of the cosines of Eq. 6, greater than 0; the paper does not specify it.
        criterion: weights for matching queries with annotated objects.

    Raises:
        ValueError: for unknown candidates, or a temperature that is not positive.
    """

    candidates: Candidates = "all"
    temperature: float = 0.1
    criterion: SetCriterionConfig = field(default_factory=SetCriterionConfig)

    def __post_init__(self) -> None:
        if self.candidates not in get_args(Candidates):
            raise ValueError(f"candidates: unknown value {self.candidates!r}; choose from {get_args(Candidates)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected more than 0, got {self.temperature}; 0.1 is a common choice")


Preset = Literal["mini", "paper"]


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """Where a training starts.

    Attributes:
        checkpoint: folder of a checkpoint to start from, instead of a preset.
        preset: `paper`, or `mini`, whose CLIP knows only the words of the training vocabulary.
        backbone: backbone of the preset `paper`, `resnet50` by default; `mask_proposal` must then have it too.
        clip: weights of CLIP: an `open_clip` tag (such as `openai`), a file or a checkpoint folder; random by default.
        clip_quick_gelu: whether the weights of a CLIP file were trained with OpenAI's activation, QuickGELU; needed
            only for a file that does not tell.
        mask_proposal: weights of the proposal network, which say what network it is: a folder of `transformers` with a
            Mask2Former, EoMT or RF-DETR-Seg, a detectron2 `.pkl` or `.pth` file, or a checkpoint folder. By default,
            the preset's network with random weights.
        classifier: replaces the classifier of the preset or checkpoint.
        inst_clip: replaces the InstCLIP of the preset or checkpoint; its tokens and adapters are initialised again
            unless it is the same.
        rollout_tracker: replaces the rollout tracker of the preset or checkpoint; it is initialised again unless it is
            the same.
        seed: seed of random weights.

    Raises:
        ValueError: if both or neither of checkpoint and preset are given, the preset is unknown, or an activation is
            given without weights of CLIP.
    """

    checkpoint: str | None = None
    preset: Preset | None = None
    backbone: str | None = None
    clip: str | None = None
    clip_quick_gelu: bool | None = None
    mask_proposal: str | None = None
    classifier: Classifier | None = None
    inst_clip: InstClipConfig | None = None
    rollout_tracker: RolloutTrackerConfig | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.preset is None):
            raise ValueError(
                "start: give either checkpoint or preset, got "
                f"checkpoint={self.checkpoint!r} and preset={self.preset!r}"
            )
        if self.preset is not None and self.preset not in get_args(Preset):
            raise ValueError(f"preset: unknown value {self.preset!r}; choose from {get_args(Preset)}")
        if self.clip_quick_gelu is not None and self.clip is None:
            raise ValueError(f"clip_quick_gelu: got {self.clip_quick_gelu} without weights; give clip, or leave it out")
