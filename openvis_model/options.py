"""Options of the method's parts: the variants that the paper's tables compare, and when tracks begin and end.

Imports no torch, so that jobs answer `--help` and check options at once.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

SIZE_DIVISOR = 32
"""Sides of the proposal network's input are multiples of it, pixels: its coarsest feature map has 1/32 of them."""

PUBLISHED: Mapping[str, object] = {
    "pre_norm": False,
    "activation_function": "relu",
    "common_stride": 4,
    "feature_strides": [4, 8, 16, 32],
}
"""Fields of transformers' Mask2Former that have one value in the published model."""


def check_published(mask2former: Mapping[str, object], name: str) -> None:
    """Checks that a Mask2Former is the published one where inference knows no other.

    Args:
        mask2former: its `transformers` config as plain values.
        name: what the config is called in errors.

    Raises:
        ValueError: names the first field that differs.
    """
    for field_name, value in PUBLISHED.items():
        if mask2former.get(field_name, value) != value:
            raise ValueError(f"{name}.{field_name}: expected {value!r} as published, got {mask2former[field_name]!r}")


Guidance = Literal["logits", "binary", "none"]
Resampling = Literal["log_mean_probability", "logit_mean_probability", "mean_logit", "max_logit"]
TokenKind = Literal["query", "instance_query"]
Classifier = Literal["inst_clip", "crop_clip"]
GuidedParts = Literal["trunk", "head", "trunk_and_head"]
Synonyms = Literal["mean", "best"]
Shots = Literal["cuts", "none"]


LORA_TARGETS = ("q_proj", "v_proj")
"""Projections of InstCLIP's attention that have LoRA adapters."""


@dataclass(frozen=True, kw_only=True)
class InstClipConfig:
    """Variants of InstCLIP (the paper's Table 5), and its adapters.

    Attributes:
        guidance: how a mask proposal steers the attention of its instance token: by the mask's `logits` (the paper's),
            `binary`, or `none`.
        resampling: how mask logits are resampled to the patch grid: log or logit of the mean mask probability, mean or
            maximum of the logits.
        register: whether a register token collects information that belongs to no instance (Darcet et al. 2023). It
            takes the class token's place; a CLIP without class token has none.
        lora_rank: rank of the LoRA adapters on the query and value projections (Hu et al. 2021).
        lora_alpha: LoRA scale; the adapter's output is multiplied by lora_alpha / lora_rank.
        guided: which parts of CLIP masks guide, where there is a choice: PE-Core's attention-pooling head alone, or its
            trunk as well. Null takes all parts that can be guided.

    Raises:
        ValueError: for an unknown value, or a rank or scale below 1.
    """

    guidance: Guidance = "logits"
    resampling: Resampling = "log_mean_probability"
    register: bool = True
    lora_rank: int = 8
    lora_alpha: int = 16
    guided: GuidedParts | None = None

    def __post_init__(self) -> None:
        if self.guidance not in get_args(Guidance):
            raise ValueError(f"guidance: unknown value {self.guidance!r}; choose from {get_args(Guidance)}")
        if self.resampling not in get_args(Resampling):
            raise ValueError(f"resampling: unknown value {self.resampling!r}; choose from {get_args(Resampling)}")
        if self.guided not in (None, *get_args(GuidedParts)):
            raise ValueError(f"guided: unknown value {self.guided!r}; choose from {get_args(GuidedParts)}, or null")
        if self.lora_rank < 1 or self.lora_alpha < 1:
            raise ValueError(
                f"lora_rank, lora_alpha: expected at least 1, got {self.lora_rank} and {self.lora_alpha}; "
                "the paper adapts CLIP with LoRA, 8 and 16 are the defaults"
            )


TrackerKind = Literal["rnn", "gru", "linear", "mlp"]


@dataclass(frozen=True, kw_only=True)
class RolloutTrackerConfig:
    """Variants of the rollout tracker (the paper's Table 6).

    Attributes:
        kind: the predictor: `rnn` (the paper's) or `gru`; `linear` and `mlp` (two layers) have no memory.
        token: content of a tracking token: instance token and query (`instance_query`, the paper's), or `query` alone.

    Raises:
        ValueError: for an unknown kind or token.
    """

    kind: TrackerKind = "rnn"
    token: TokenKind = "instance_query"

    def __post_init__(self) -> None:
        if self.kind not in get_args(TrackerKind):
            raise ValueError(f"rollout_tracker.kind: unknown value {self.kind!r}; choose from {get_args(TrackerKind)}")
        if self.token not in get_args(TokenKind):
            raise ValueError(f"rollout_tracker.token: unknown value {self.token!r}; choose from {get_args(TokenKind)}")


AssociationKind = Literal["rollout", "hungarian", "momentum", "sort", "iou"]


MIN_SIMILARITY: dict[AssociationKind, float] = {
    "rollout": 0.1,
    "hungarian": 0.2,
    "momentum": 0.2,
    "sort": 0.3,
    "iou": 0.3,
}
"""Default gates: for boxes SORT's intersection over union, for tokens a cosine that unrelated objects rarely reach.

Rollout tokens are further from an object's next tokens than these are from each other, so they have a lower one.
"""


@dataclass(frozen=True, kw_only=True)
class AssociationConfig:
    """How instances are linked over time.

    Attributes:
        kind: `rollout` (the paper's), `hungarian` (previous frame's tokens: MinVIS, Huang et al. 2022), `momentum`
            (running tokens: OV2Seg, Wang et al. 2023), `sort` (Kalman box and IoU: Bewley et al. 2016), `iou`
            (previous box: Bochinski et al. 2017).
        token: which tracking token `rollout`, `hungarian` and `momentum` compare. Null takes the one that the rollout
            tracker was trained with for `rollout`, and `instance_query` for the others; MinVIS and OV2Seg have `query`.
        momentum: weight of the new token in the running token of `momentum`, in (0, 1]; OV2Seg uses 0.7.
        min_similarity: smallest similarity of a match: a cosine for tokens, an intersection over union for boxes. It
            keeps an unrelated object from taking over the track of one that has left. Null takes the default of the
            kind: 0.1 for `rollout`, 0.2 for other tokens, 0.3 for boxes. -1 accepts every match, as MinVIS and
            benchmark runs do; use it with an untrained tracker.

    Raises:
        ValueError: for an unknown kind or token, or a number out of range.
    """

    kind: AssociationKind = "rollout"
    token: TokenKind | None = None
    momentum: float = 0.7
    min_similarity: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(AssociationKind):
            raise ValueError(f"association.kind: unknown value {self.kind!r}; choose from {get_args(AssociationKind)}")
        if self.token not in (None, *get_args(TokenKind)):
            raise ValueError(
                f"association.token: unknown value {self.token!r}; choose from {get_args(TokenKind)}, or null"
            )
        if not 0 < self.momentum <= 1:
            raise ValueError(f"association.momentum: expected a value in (0, 1], got {self.momentum}")
        if self.min_similarity is not None and not -1 <= self.min_similarity <= 1:
            raise ValueError(
                f"association.min_similarity: expected a value in [-1, 1] or null, got {self.min_similarity}"
            )

    @property
    def gate(self) -> float:
        """The smallest similarity of a match, in [-1, 1]."""
        return MIN_SIMILARITY[self.kind] if self.min_similarity is None else self.min_similarity


@dataclass(frozen=True, kw_only=True)
class VideoTrackerConfig:
    """When tracks begin and end.

    Attributes:
        association: how instances are linked.
        objectness_threshold: a track is alive in the frames where its objectness, a probability, reaches this.
        max_gap: frames that a track may be out of sight; then it has ended, and what comes later is a new track.
            Counts the frames handed in, which are the sampled ones, not the frame indices that they skip.

    Raises:
        ValueError: for a value out of range.
    """

    association: AssociationConfig = field(default_factory=AssociationConfig)
    objectness_threshold: float = 0.5
    max_gap: int = 30

    def __post_init__(self) -> None:
        if not 0 <= self.objectness_threshold <= 1:
            raise ValueError(f"objectness_threshold: expected a probability, got {self.objectness_threshold}")
        if self.max_gap < 0:
            raise ValueError(f"max_gap: expected a number of frames, 0 or more, got {self.max_gap}")

    def identity(self) -> dict[str, Any]:
        """Returns all that tracks depend on, for hashes: the settings, and the version of rules that have changed."""
        association = self.association
        links_queries = association.kind in ("hungarian", "momentum") and association.token == "query"
        has_new_gate = association.kind == "rollout" and association.min_similarity is None
        return asdict(self) | ({"rules": 2} if links_queries or has_new_gate else {})
