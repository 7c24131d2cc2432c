"""Options of the method's parts: the variants that the paper's tables compare, and when tracks begin and end.

Imports no torch, so that jobs answer `--help` and check options at once.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

Guidance = Literal["logits", "binary", "none"]
Resampling = Literal["log_mean_probability", "logit_mean_probability", "mean_logit", "max_logit"]
TokenKind = Literal["query", "instance_query"]
Classifier = Literal["inst_clip", "crop_clip"]


@dataclass(frozen=True, kw_only=True)
class InstClipConfig:
    """What the paper's Table 5 ablates, and the adapters.

    Attributes:
        guidance: how a mask proposal steers its instance token (see `instance_guidance`).
        resampling: how mask logits reach the patch grid.
        register: whether a register token collects what no instance should (Darcet et al. 2023).
        lora_rank: rank of the LoRA adapters on the query and value projections (Hu et al. 2021).
        lora_alpha: LoRA scale; the adapter's output is multiplied by lora_alpha / lora_rank.
    """

    guidance: Guidance = "logits"
    resampling: Resampling = "log_mean_probability"
    register: bool = True
    lora_rank: int = 8
    lora_alpha: int = 16

    def __post_init__(self) -> None:
        if self.guidance not in get_args(Guidance):
            raise ValueError(f"guidance: unknown value {self.guidance!r}; choose from {get_args(Guidance)}")
        if self.resampling not in get_args(Resampling):
            raise ValueError(f"resampling: unknown value {self.resampling!r}; choose from {get_args(Resampling)}")
        if self.lora_rank < 1 or self.lora_alpha < 1:
            raise ValueError(
                f"lora_rank, lora_alpha: expected at least 1, got {self.lora_rank} and {self.lora_alpha}; "
                "the paper adapts CLIP with LoRA, 8 and 16 are the defaults"
            )


TrackerKind = Literal["rnn", "gru", "linear", "mlp"]


@dataclass(frozen=True, kw_only=True)
class RolloutTrackerConfig:
    """What the paper's Table 6 ablates.

    Attributes:
        kind: the predictor: `rnn` (the paper's), `gru`, or without memory `linear` and `mlp` (two layers).
        token: what a tracking token is made of.
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
    "rollout": 0.2,
    "hungarian": 0.2,
    "momentum": 0.2,
    "sort": 0.3,
    "iou": 0.3,
}
"""Default gates: for boxes SORT's intersection over union, for tokens a cosine that unrelated objects do not reach."""


@dataclass(frozen=True, kw_only=True)
class AssociationConfig:
    """How instances are linked over time.

    Attributes:
        kind: `rollout` (the paper's), `hungarian` (previous frame's tokens: MinVIS, Huang et al. 2022), `momentum`
            (running tokens: OV2Seg, Wang et al. 2023), `sort` (Kalman box and IoU: Bewley et al. 2016), `iou`
            (previous box: Bochinski et al. 2017).
        token: tracking token of the token associations; None is the rollout tracker's own for `rollout` and
            `instance_query` for the others.
        momentum: weight of the new token in the running one, in (0, 1]; OV2Seg uses 0.7.
        min_similarity: matches below are refused, a gate that keeps an unrelated object from taking over the track of
            one that has left; a cosine for tokens, an intersection over union for boxes. None is the kind's own,
            `MIN_SIMILARITY`; -1 refuses none, as MinVIS and benchmark runs do, and suits an untrained tracker.

    Raises:
        ValueError: for a value out of range.
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
