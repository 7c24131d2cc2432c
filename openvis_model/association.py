"""Which instance of a frame continues which track: the paper's rollout association and four others.

An association keeps a memory with one row per track. `VideoTracker` matches, adds and drops rows; an association
defines what a row holds, how it changes from frame to frame, and how similar an instance is to it.
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
"""Tensors with one row per track; their content is private to the association."""


class Association(ABC):
    """One way to link instances to tracks. Letters: M tracks, n instances in the frame, F observed values of each.

    Attributes:
        takes_empty_masks: whether the row of a track takes in a matched instance whose mask is empty.
    """

    takes_empty_masks: bool = False

    @abstractmethod
    def observe(self, instances: Instances) -> Float[Tensor, "n F"]:
        """Returns what the association compares: a tracking token or a box of each instance."""

    @abstractmethod
    def start(self, observed: Float[Tensor, "n F"]) -> Memory:
        """Makes the rows of tracks that begin with these instances."""

    @abstractmethod
    def similarity(self, memory: Memory, observed: Float[Tensor, "n F"]) -> Float[Tensor, "M n"]:
        """Measures how well each instance continues each track, in [-1, 1]."""

    @abstractmethod
    def update(self, memory: Memory, observed: Float[Tensor, "M F"]) -> Memory:
        """Updates the rows; row i of `observed` is the instance that continues track i."""

    def advance(self, memory: Memory) -> Memory:
        """Predicts the rows one frame later, before anything is observed."""
        return memory


class Rollout(Association):
    """Universal rollout association (OpenVIS, Eq. 5): a row holds the rollout token and the hidden state.

    Args:
        tracker: the trained tracker; a copy runs on the CPU, where instances are.
    """

    def __init__(self, tracker: RolloutTracker) -> None:
        self.tracker = copy.deepcopy(tracker).cpu().eval()

    def observe(self, instances: Instances) -> Float[Tensor, "n F"]:
        """Returns the tracking tokens T_t.

        Raises:
            ValueError: for tokens whose width is not the tracker's.
        """
        tokens = instances.tracking_tokens(self.tracker.config.token)
        if tokens.shape[1] != self.tracker.width:
            raise ValueError(
                f"rollout_tracker: made for tracking tokens of width {self.tracker.width}, got {tokens.shape[1]}; "
                "use the tracker of the model that found the instances"
            )
        return tokens

    def start(self, observed: Float[Tensor, "n F"]) -> Memory:
        """Predicts the next frame's tokens from a zero hidden state."""
        rollout_tokens, hidden = self.tracker(observed, self.tracker.initial_state(len(observed)))
        return rollout_tokens, hidden

    def similarity(self, memory: Memory, observed: Float[Tensor, "n F"]) -> Float[Tensor, "M n"]:
        """Returns S_ij = cos(T^A_i, T_j), rollout token i and tracking token j."""
        return cosine(memory[0], observed)

    def update(self, memory: Memory, observed: Float[Tensor, "M F"]) -> Memory:
        """Feeds the matched tokens to the tracker, which predicts those of the next frame."""
        rollout_tokens, hidden = self.tracker(observed, memory[1])
        return rollout_tokens, hidden


class RunningToken(Association):
    """A row holds a running tracking token (OV2Seg, Wang et al. 2023); momentum 1 keeps the last (MinVIS).

    With queries alone it is the published code of both: queries are averaged as they are, so that longer ones weigh
    more, and a row also takes in instances with an empty mask. An instance token of an empty mask embeds nothing.
    """

    def __init__(self, token: TokenKind, momentum: float) -> None:
        self.token = token
        self.momentum = momentum
        self.takes_empty_masks = token == "query"

    def observe(self, instances: Instances) -> Float[Tensor, "n F"]:
        """Returns the tracking tokens T_t, or the queries Q_t at their full length."""
        return instances.queries if self.token == "query" else instances.tracking_tokens(self.token)

    def start(self, observed: Float[Tensor, "n F"]) -> Memory:
        """Keeps the first token."""
        return (observed,)

    def similarity(self, memory: Memory, observed: Float[Tensor, "n F"]) -> Float[Tensor, "M n"]:
        """Returns the cosine of running and new tokens."""
        return cosine(memory[0], observed)

    def update(self, memory: Memory, observed: Float[Tensor, "M F"]) -> Memory:
        """Averages the tokens: the new one has the weight `momentum`, the running one the rest."""
        return (torch.lerp(memory[0], observed, self.momentum),)


class BoxIou(Association):
    """IoU tracking (Bochinski et al. 2017): a row holds the last box."""

    def observe(self, instances: Instances) -> Float[Tensor, "n F"]:
        """Returns the boxes (x, y, width, height), pixels."""
        return instances.boxes

    def start(self, observed: Float[Tensor, "n F"]) -> Memory:
        """Keeps the first box."""
        return (observed,)

    def similarity(self, memory: Memory, observed: Float[Tensor, "n F"]) -> Float[Tensor, "M n"]:
        """Returns the intersection over union of last and observed boxes."""
        return xywh_iou(memory[0], observed)

    def update(self, memory: Memory, observed: Float[Tensor, "M F"]) -> Memory:
        """Replaces the boxes."""
        del memory
        return (observed,)


class Sort(Association):
    """SORT (Bewley et al. 2016): a row holds mean and covariance of a constant-velocity Kalman filter.

    The state is (centre x, centre y, area, aspect, and the velocities of the first three), in pixels and frames. The
    noise is that of the authors' released code.
    """

    TRANSITION = torch.eye(7) + torch.diag(torch.ones(3), 4)
    OBSERVATION = torch.eye(4, 7)
    INITIAL_COVARIANCE = torch.diag(torch.tensor([10.0, 10, 10, 10, 1e4, 1e4, 1e4]))
    PROCESS_NOISE = torch.diag(torch.tensor([1, 1, 1, 1, 1e-2, 1e-2, 1e-4]))
    OBSERVATION_NOISE = torch.diag(torch.tensor([1.0, 1, 10, 10]))

    def observe(self, instances: Instances) -> Float[Tensor, "n F"]:
        """Returns the boxes (x, y, width, height), pixels."""
        return instances.boxes

    def start(self, observed: Float[Tensor, "n F"]) -> Memory:
        """Starts at the first box with zero velocity and a large velocity variance."""
        return F.pad(centre_area_aspect(observed), (0, 3)), self.INITIAL_COVARIANCE.repeat(len(observed), 1, 1)

    def advance(self, memory: Memory) -> Memory:
        """Does the Kalman prediction; an area that would turn negative stops shrinking."""
        mean, covariance = memory
        stop = mean[:, 2] + mean[:, 6] <= 0
        mean = torch.cat([mean[:, :6], mean[:, 6:].masked_fill(stop[:, None], 0)], dim=1)
        return mean @ self.TRANSITION.mT, self.TRANSITION @ covariance @ self.TRANSITION.mT + self.PROCESS_NOISE

    def similarity(self, memory: Memory, observed: Float[Tensor, "n F"]) -> Float[Tensor, "M n"]:
        """Returns the intersection over union of predicted and observed boxes."""
        x, y, area, aspect = memory[0][:, :4].unbind(1)
        width = (area * aspect).clamp(min=0).sqrt()
        height = area.clamp(min=0) / width.clamp(min=1e-6)
        return xywh_iou(torch.stack([x - width / 2, y - height / 2, width, height], dim=1), observed)

    def update(self, memory: Memory, observed: Float[Tensor, "M F"]) -> Memory:
        """Does the Kalman correction with the observed boxes."""
        mean, covariance = memory
        residual = centre_area_aspect(observed) - mean @ self.OBSERVATION.mT
        cross = covariance @ self.OBSERVATION.mT
        gain = torch.linalg.solve(self.OBSERVATION @ cross + self.OBSERVATION_NOISE, cross, left=False)
        return mean + (gain @ residual[..., None])[..., 0], covariance - gain @ cross.mT


def build_association(config: AssociationConfig, tracker: RolloutTracker | None) -> Association:
    """Builds the association that a config describes.

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
    """Matches tracks and instances one to one, with the largest total similarity (Hungarian algorithm).

    Returns:
        Track rows and instances of the matches whose similarity is at least `min_similarity`.

    Raises:
        ValueError: for a NaN similarity.
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
    """Returns the cosine of every row of a with every row of b."""
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).mT


def xywh_iou(a: Float[Tensor, "M 4"], b: Float[Tensor, "n 4"]) -> Float[Tensor, "M n"]:
    """Returns the intersection over union of (x, y, width, height) boxes; 0 where both are empty."""
    top_left = torch.maximum(a[:, None, :2], b[:, :2])
    bottom_right = torch.minimum((a[:, :2] + a[:, 2:])[:, None], b[:, :2] + b[:, 2:])
    intersection = (bottom_right - top_left).clamp(min=0).prod(-1)
    return (intersection / (a[:, None, 2:].prod(-1) + b[:, 2:].prod(-1) - intersection)).nan_to_num(0.0)


def centre_area_aspect(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 4"]:
    """Converts (x, y, width, height) boxes to what SORT observes: centre x, centre y, area, width / height."""
    x, y, width, height = boxes.unbind(1)
    return torch.stack([x + width / 2, y + height / 2, width * height, width / height.clamp(min=1)], dim=1)
