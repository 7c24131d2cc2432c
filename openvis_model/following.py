"""Follows objects that were shown in one frame: which proposal is meant, and which one continues it in other frames.

The frames after the one that shows an object are followed in order, those before it in reverse, by the association of
labelling. All instances of a frame take part, so that an object does not become its look-alike.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from openvis_model.association import xywh_iou
from openvis_model.instances import Instances
from openvis_model.options import VideoTrackerConfig
from openvis_model.prompts import Prompt
from openvis_model.rle import decode
from openvis_model.rollout_tracker import RolloutTracker
from openvis_model.video_tracker import NO_TRACK, TrackerState, VideoTracker
from openvis_model.vocabulary import VocabularyEmbedding

MIN_IOU = 0.5
"""Smallest intersection over union of a prompt's box and that of the mask which it means."""

_AS_GOOD = 0.1
"""Boxes whose IoU is at most this much below the best one count as equally good: proposals overlap."""

_AS_CERTAIN = 0.5
"""Of masks at a point, those with at least this share of the largest objectness are objects or their parts."""

ABSENT = -1
"""Instead of an instance, where an object is not in sight."""


class NoFitError(ValueError):
    """No proposal of a frame is what a prompt shows; the message says how far off the best one is."""


def best_fit(prompt: Prompt, instances: Instances, threshold: float) -> int:
    """Returns the instance that a prompt means.

    Only instances in sight are looked at, as tracking does. They must cover all points, and none of the excluded ones.

    - With a box, it is the one whose mask has the box with the largest intersection over union, at least `MIN_IOU`. Of
      those that are at most 0.1 below the largest, the one with the largest objectness is taken.
    - With points alone, several may be meant, such as a person and the shirt: it is the smallest mask of those whose
      objectness is at least half of the largest. A further point on the larger object leaves out the smaller one.

    Args:
        prompt: a box or points in the frame.
        instances: of the frame, with masks of the size of the video.
        threshold: smallest objectness of an instance in sight.

    Raises:
        NoFitError: there is none; names the prompt, what comes nearest, and the remedy.
    """
    objectness, areas = instances.objectness.numpy(), instances.masks.areas
    in_sight = (objectness >= threshold) & (areas > 0)
    fits = in_sight & _covers(prompt, instances)
    if not fits.any():
        raise NoFitError(
            f"{prompt.place}: {prompt}: no proposal fits: of {in_sight.sum()} in the frame, "
            f"{'none covers its points' if in_sight.any() else 'so none could'}; {_REMEDY}"
        )
    if prompt.box is None:
        fits &= objectness >= _AS_CERTAIN * objectness[fits].max()
        return int(np.where(fits, areas, areas.max() + 1).argmin())
    ious = np.where(fits, _ious(prompt.box, instances), 0.0)
    if ious.max() < MIN_IOU:
        raise NoFitError(
            f"{prompt.place}: {prompt}: no proposal fits: of {in_sight.sum()} in the frame, the best has an IoU of "
            f"{ious.max():.2f} with the box, {MIN_IOU} is needed; {_REMEDY}"
        )
    return int(np.where(ious >= max(MIN_IOU, ious.max() - _AS_GOOD), objectness, -1.0).argmax())


_REMEDY = (
    "show it more closely, choose a frame that shows the object better, or lower tracker.objectness_threshold, the "
    "objectness that proposals need"
)


def _covers(prompt: Prompt, instances: Instances) -> Bool[np.ndarray, " n"]:
    """Returns which masks contain the points of a prompt, and none of the excluded ones."""
    covers = np.ones(len(instances), bool)
    if not prompt.points and not prompt.excluded:
        return covers
    for index, counts in enumerate(instances.masks.counts):
        mask = decode(instances.masks.size, counts)
        covers[index] = all(mask[y, x] for x, y in prompt.points) and not any(mask[y, x] for x, y in prompt.excluded)
    return covers


def _ious(box: tuple[int, int, int, int], instances: Instances) -> Float[np.ndarray, " n"]:
    return xywh_iou(torch.tensor([box], dtype=torch.float32), instances.boxes)[0].numpy()


def follow(
    config: VideoTrackerConfig,
    rollout_tracker: RolloutTracker | None,
    frames: Iterable[Instances],
    chosen: Sequence[int],
) -> Iterator[Int[np.ndarray, " k"]]:
    """Follows instances of the first frame through the frames after it; for those before it, hand these in reversed.

    Args:
        config: when tracks end, and how instances are linked.
        rollout_tracker: the trained tracker; only `rollout` association needs it.
        frames: all instances of each frame.
        chosen: k different instances of the first frame, each in sight.

    Yields:
        For each frame, the instances that continue the chosen ones, `ABSENT` where one is not in sight. The first frame
        comes first; after the end of all tracks, nothing comes.
    """
    tracker: VideoTracker | None = None
    state, followed = TrackerState(), list[int]()
    for number, instances in enumerate(frames):
        if tracker is None:
            tracker = VideoTracker(config, _nameless(instances.instance_tokens.shape[1]), rollout_tracker, top=1)
        state, tracked = tracker.step(state, number, instances)
        if number == 0:
            followed = tracked.track_ids[list(chosen)].tolist()
        ended = {track.track_id for track in tracked.ended}
        followed = [NO_TRACK if track_id in ended else track_id for track_id in followed]
        if set(followed) == {NO_TRACK}:
            return
        at = {int(track_id): index for index, track_id in enumerate(tracked.track_ids) if track_id != NO_TRACK}
        yield np.array([at.get(track_id, ABSENT) for track_id in followed])


def _nameless(width: int) -> VocabularyEmbedding:
    """Returns a vocabulary for tracks whose names do not matter."""
    return VocabularyEmbedding(("object",), torch.zeros(1, width), 1.0)
