"""How well do objects that are shown in the middle frame get followed? J, against the tracks of labelling.

python -m tests.benchmarks.prompts

The built-in model, 40 videos of each split of Shapes. Each object that is in sight in the middle frame is shown by its
true box, and by the pixel farthest from its edge. J is the mean, over all frames where the object or the track is, of
the IoU of the two; 0 for an object whose prompt fits nothing. `labelling` is the track that has the same proposal in
the middle frame when the video is labelled from its first frame on. It takes five minutes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

import openvis_model as openvis
from openvis_model.following import ABSENT, NoFitError, best_fit, follow
from openvis_model.instances import Instances
from openvis_model.options import VideoTrackerConfig
from openvis_model.prompts import Prompt
from openvis_model.rollout_tracker import RolloutTracker
from openvis_model.video_tracker import TrackerState, VideoTracker
from openvis_model.vocabulary import VocabularyEmbedding
from pipelines.shapes.render import Clip, render
from pipelines.shapes.scenes import SceneConfig, Split

VIDEOS, SEED = 40, 5
SPLITS: tuple[Split, ...] = ("valid", "hard")
THRESHOLDS = (0.5, 0.3, 0.1)


def shown(mask: np.ndarray, kind: str, frame: int) -> Prompt:
    """A prompt for what a mask covers."""
    rows, columns = np.nonzero(mask)
    if kind == "box":
        left, top = int(columns.min()), int(rows.min())
        box = (left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top)
        return Prompt(name="object", frame=frame, box=box)
    y, x = np.unravel_index(distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1].argmax(), mask.shape)
    return Prompt(name="object", frame=frame, points=((int(x), int(y)),))


def followed(
    frames: Sequence[Instances], middle: int, instance: int, config: VideoTrackerConfig, tracker: RolloutTracker
) -> np.ndarray:
    """The instance of each frame, from the middle one on in both directions."""
    picks = np.full(len(frames), ABSENT)
    for way in (range(middle, len(frames)), range(middle, -1, -1)):
        found = follow(config, tracker, (frames[at] for at in way), [instance])
        for at, picked in zip(way, found, strict=False):
            picks[at] = picked[0]
    return picks


def labelled(
    frames: Sequence[Instances], middle: int, config: VideoTrackerConfig, tracker: RolloutTracker
) -> list[np.ndarray]:
    """The track of each instance of each frame, as labelling has them."""
    nameless = VocabularyEmbedding(("object",), torch.zeros(1, frames[middle].instance_tokens.shape[1]), 1.0)
    video, state, ids = VideoTracker(config, nameless, tracker), TrackerState(), list[np.ndarray]()
    for number, instances in enumerate(frames):
        state, tracked = video.step(state, number, instances)
        ids.append(tracked.track_ids)
    return ids


def overlap(frames: Sequence[Instances], picks: np.ndarray, truth: np.ndarray) -> float:
    """J of a track."""
    ious = list[float]()
    for instances, pick, mask in zip(frames, picks, truth, strict=True):
        if pick == ABSENT and not mask.any():
            continue
        found = np.zeros_like(mask) if pick == ABSENT else instances.masks.take(np.array([pick])).to_dense()[0]
        ious.append(float((found & mask).sum() / (found | mask).sum()))
    return float(np.mean(ious))


def measure(clips: Sequence[Clip], model: Any, threshold: float, kind: str) -> tuple[int, float, float, float]:
    """Returns the number of objects, the share whose prompt fits, and J of their tracks, followed and labelled."""
    config, tracker = VideoTrackerConfig(objectness_threshold=threshold), model.rollout_tracker
    fits, js, its = 0, list[float](), list[float]()
    for clip in clips:
        frames = [
            instances
            for start in range(0, len(clip.frames), 8)
            for instances in model(torch.from_numpy(clip.frames[start : start + 8]), objectness_floor=threshold)
        ]
        middle = len(frames) // 2
        ids = labelled(frames, middle, config, tracker)
        for truth in clip.masks[clip.masks[:, middle].any((1, 2))]:
            try:
                instance = best_fit(shown(truth[middle], kind, middle), frames[middle], threshold)
            except NoFitError:
                js, its = [*js, 0.0], [*its, 0.0]
                continue
            fits += 1
            same = [np.flatnonzero(each == ids[middle][instance]) for each in ids]
            js.append(overlap(frames, followed(frames, middle, instance, config, tracker), truth))
            its.append(overlap(frames, np.array([each[0] if len(each) else ABSENT for each in same]), truth))
    return len(js), fits / len(js), float(np.mean(js)), float(np.mean(its))


def main() -> None:
    torch.set_num_threads(1)
    model = openvis.load()
    print("| split | shown by | `objectness_threshold` | objects | fit | J followed | J labelling |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for split in SPLITS:
        clips = [render(SceneConfig(), split, SEED, index) for index in range(VIDEOS)]
        for kind in ("box", "point"):
            for threshold in THRESHOLDS:
                count, fit, j, its = measure(clips, model, threshold, kind)
                cells = " | ".join(f"{100 * value:.1f}" for value in (fit, j, its))
                print(f"| {split} | {kind} | {threshold} | {count} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
