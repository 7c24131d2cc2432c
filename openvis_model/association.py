"""Which instance of this frame continues which track: the paper's rollout association and four others.

An association keeps a memory with one row per track. `VideoTracker` matches, adds and drops rows; an association only
says what a row holds, how it moves from frame to frame, and how like an instance is to it.
"""

import copy
from abc import ABC, abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from openvis_model.instances import Instances
from openvis_model.options import AssociationConfig, TokenKind
from openvis_model.rollout_tracker import RolloutTracker

Memory = tuple[Tensor, ...]
"""Tensors with one row per track; what they hold is the association's own affair."""


class Association(ABC):
    """One way to link instances to tracks. Letters: M tracks, n instances of the frame, F observed values of each."""

    @abstractmethod
    def observe(self, instances: Instances) -> Float[Tensor, "n F"]:
        """What the association looks at: a tracking token or a box."""

    @abstractmethod
    def start(self, observed: Float[Tensor, "n F"]) -> Memory:
        """Rows of tracks that begin with these instances."""

    @abstractmethod
    def similarity(self, memory: Memory, observed: Float[Tensor, "n F"]) -> Float[Tensor, "M n"]:
        """How well each instance continues each track, in [-1, 1]."""

    @abstractmethod
    def update(self, memory: Memory, observed: Float[Tensor, "M F"]) -> Memory:
        """Rows after each track was continued by the instance of the same row."""

    def advance(self, memory: Memory) -> Memory:
        """Rows one frame later, before anything is seen."""
        return memory


class Rollout(Association):
    """Universal rollout association (Eq. 5): a row holds the rollout token and the hidden state.

    Args:
        tracker: the trained tracker; a copy of it runs on the CPU, where instances are.
    """

    def __init__(self, tracker: RolloutTracker) -> None:
        self.tracker = copy.deepcopy(tracker).cpu().eval()

    def observe(self, instances: Instances) -> Float[Tensor, "n F"]:
        """Tracking tokens T_t.

        Raises:
            ValueError: if the tracker was made for tokens of another width.
        """
        tokens = instances.tracking_tokens(self.tracker.config.token)
        if tokens.shape[1] != self.tracker.width:
            raise ValueError(
                f"rollout_tracker: made for tracking tokens of width {self.tracker.width}, got {tokens.shape[1]}; "
                "use the tracker of the model that found the instances"
            )
        return tokens

    def start(self, observed: Float[Tensor, "n F"]) -> Memory:
        """Predictions without history."""
        rollout_tokens, hidden = self.tracker(observed, self.tracker.initial_state(len(observed)))
        return rollout_tokens, hidden

    def similarity(self, memory: Memory, observed: Float[Tensor, "n F"]) -> Float[Tensor, "M n"]:
        """S_ij = cos(T^A_i, T_j)."""
        return cosine(memory[0], observed)

    def update(self, memory: Memory, observed: Float[Tensor, "M F"]) -> Memory:
        """The hidden state takes in the aligned tokens and predicts those of the next frame."""
        rollout_tokens, hidden = self.tracker(observed, memory[1])
        return rollout_tokens, hidden


class RunningToken(Association):
    """A row holds a running tracking token; with momentum 1 it is the last frame's token."""

    def __init__(self, token: TokenKind, momentum: float) -> None:
        self.token = token
        self.momentum = momentum

    def observe(self, instances: Instances) -> Float[Tensor, "n F"]:
        """Tracking tokens T_t."""
        return instances.tracking_tokens(self.token)

    def start(self, observed: Float[Tensor, "n F"]) -> Memory:
        """The first token."""
        return (observed,)

    def similarity(self, memory: Memory, observed: Float[Tensor, "n F"]) -> Float[Tensor, "M n"]:
        """Cosine of running and new tokens."""
        return cosine(memory[0], observed)

    def update(self, memory: Memory, observed: Float[Tensor, "M F"]) -> Memory:
        """The new token weighs `momentum`, the running one the rest."""
        return (torch.lerp(memory[0], observed, self.momentum),)


class BoxIou(Association):
    """A row holds the last box."""

    def observe(self, instances: Instances) -> Float[Tensor, "n F"]:
        """Boxes."""
        return instances.boxes

    def start(self, observed: Float[Tensor, "n F"]) -> Memory:
        """The first box."""
        return (observed,)

    def similarity(self, memory: Memory, observed: Float[Tensor, "n F"]) -> Float[Tensor, "M n"]:
        """Intersection over union of boxes."""
        return xywh_iou(memory[0], observed)

    def update(self, memory: Memory, observed: Float[Tensor, "M F"]) -> Memory:
        """The new box."""
        del memory
        return (observed,)


class Sort(Association):
    """SORT (Bewley et al. 2016): a row holds mean and covariance of a constant-velocity Kalman filter.

    The state is (centre x, centre y, area, aspect, and the velocities of the first three), in pixels and frames; noise
    as in the paper's published settings.
    """

    TRANSITION = torch.eye(7) + torch.diag(torch.ones(3), 4)
    OBSERVATION = torch.eye(4, 7)
    INITIAL_COVARIANCE = torch.diag(torch.tensor([10.0, 10, 10, 10, 1e4, 1e4, 1e4]))
    PROCESS_NOISE = torch.diag(torch.tensor([1, 1, 1, 1, 1e-2, 1e-2, 1e-4]))
    OBSERVATION_NOISE = torch.diag(torch.tensor([1.0, 1, 10, 10]))

    def observe(self, instances: Instances) -> Float[Tensor, "n F"]:
        """Boxes."""
        return instances.boxes

    def start(self, observed: Float[Tensor, "n F"]) -> Memory:
        """At rest at the first box, velocities unknown."""
        return F.pad(centre_area_aspect(observed), (0, 3)), self.INITIAL_COVARIANCE.repeat(len(observed), 1, 1)

    def advance(self, memory: Memory) -> Memory:
        """Kalman prediction; an area that would turn negative stops shrinking."""
        mean, covariance = memory
        stop = mean[:, 2] + mean[:, 6] <= 0
        mean = torch.cat([mean[:, :6], mean[:, 6:].masked_fill(stop[:, None], 0)], dim=1)
        return mean @ self.TRANSITION.mT, self.TRANSITION @ covariance @ self.TRANSITION.mT + self.PROCESS_NOISE

    def similarity(self, memory: Memory, observed: Float[Tensor, "n F"]) -> Float[Tensor, "M n"]:
        """Intersection over union of predicted and seen boxes."""
        x, y, area, aspect = memory[0][:, :4].unbind(1)
        width = (area * aspect).clamp(min=0).sqrt()
        height = area.clamp(min=0) / width.clamp(min=1e-6)
        return xywh_iou(torch.stack([x - width / 2, y - height / 2, width, height], dim=1), observed)

    def update(self, memory: Memory, observed: Float[Tensor, "M F"]) -> Memory:
        """Kalman correction with the seen boxes."""
        mean, covariance = memory
        residual = centre_area_aspect(observed) - mean @ self.OBSERVATION.mT
        cross = covariance @ self.OBSERVATION.mT
        gain = torch.linalg.solve(self.OBSERVATION @ cross + self.OBSERVATION_NOISE, cross, left=False)
        return mean + (gain @ residual[..., None])[..., 0], covariance - gain @ cross.mT


def build_association(config: AssociationConfig, tracker: RolloutTracker | None) -> Association:
    """The association that a config names.

    Raises:
        ValueError: for `rollout` without a rollout tracker, or with one made for another tracking token.
    """
    token = config.token or "instance_query"
    match config.kind:
        case "rollout":
            if tracker is None:
                raise ValueError("association.kind: 'rollout' needs a rollout tracker; use a checkpoint that has one")
            if config.token not in (None, tracker.config.token):
                raise ValueError(
                    f"association.token: the rollout tracker was made for {tracker.config.token!r}, got "
                    f"{config.token!r}; leave it null, or use a checkpoint whose tracker has this token"
                )
            return Rollout(tracker)
        case "hungarian":
            return RunningToken(token, momentum=1.0)
        case "momentum":
            return RunningToken(token, config.momentum)
        case "sort":
            return Sort()
        case "iou":
            return BoxIou()


def assign(similarity: Float[Tensor, "M n"], min_similarity: float) -> tuple[np.ndarray, np.ndarray]:
    """Hungarian matching of largest total similarity; returns (track rows, instances) of the matches kept.

    Raises:
        ValueError: for a similarity that is NaN.
    """
    scores = similarity.numpy()
    if np.isnan(scores).any():
        raise ValueError(
            f"similarity: NaN in {np.isnan(scores).sum()} of {scores.size} values; the instance tokens or the rollout "
            "tokens are not finite: use a checkpoint with finite weights, or run in float32"
        )
    rows, columns = linear_sum_assignment(scores, maximize=True)
    kept = scores[rows, columns] >= min_similarity
    return rows[kept], columns[kept]


def cosine(a: Float[Tensor, "M E"], b: Float[Tensor, "n E"]) -> Float[Tensor, "M n"]:
    """Cosine of every row of a with every row of b."""
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).mT


def xywh_iou(a: Float[Tensor, "M 4"], b: Float[Tensor, "n 4"]) -> Float[Tensor, "M n"]:
    """Intersection over union of (x, y, width, height) boxes; 0 where both are empty."""
    near = torch.maximum(a[:, None, :2], b[:, :2])
    far = torch.minimum((a[:, :2] + a[:, 2:])[:, None], b[:, :2] + b[:, 2:])
    shared = (far - near).clamp(min=0).prod(-1)
    return (shared / (a[:, None, 2:].prod(-1) + b[:, 2:].prod(-1) - shared)).nan_to_num(0.0)


def centre_area_aspect(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """(x, y, width, height) boxes as SORT observes them: centre x, centre y, area, width / height."""
    x, y, width, height = boxes.unbind(1)
    return torch.stack([x + width / 2, y + height / 2, width * height, width / height.clamp(min=1)], dim=1)
