"""How many tracks of the same object are linked, and how many of different ones? HOTA and IDF1 before and after.

python -m tests.benchmarks.identities

The built-in model tracks Shapes of the hard split with all names. `gaps`: objects hide and leave; a track ends after
two frames out of sight. `cuts`: another scene lies between the two halves of a scene. It takes three minutes.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import trackeval

import openvis_model as openvis
from openvis_model.options import VideoTrackerConfig
from pipelines.archive.identities import link
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig

VIDEOS, SEED = 60, 11
FRAMES = 24
COVERED = 0.5  # share of a track's pixels that are of one object from which on it is a track of that object
THRESHOLDS = (0.7, 0.8, 0.85, 0.9, 0.95)


class Sequence(NamedTuple):
    """Frames, and the mask and the number of each object."""

    frames: np.ndarray
    masks: np.ndarray


def gaps(index: int) -> Sequence:
    clip = render(SceneConfig(frames=2 * FRAMES), "hard", SEED, index)
    return Sequence(clip.frames, clip.masks)


def cuts(index: int) -> Sequence:
    """The objects of the scene between are objects, too."""
    outer, inner = (render(SceneConfig(frames=FRAMES), "hard", SEED, number) for number in (index, VIDEOS + index))
    half, none = FRAMES // 2, np.zeros_like
    frames = np.concatenate([outer.frames[:half], inner.frames[:half], outer.frames[half:]])
    first, between, second = outer.masks[:, :half], inner.masks[:, :half], outer.masks[:, half:]
    masks = [
        np.concatenate([first, none(first), second], axis=1),
        np.concatenate([none(between), between, none(between)], axis=1),
    ]
    return Sequence(frames, np.concatenate(masks))


class Tracked(NamedTuple):
    """What was found in a sequence: the tracks, the object of each (-1 for none), and what TrackEval compares."""

    tracks: list[openvis.Track]
    objects: np.ndarray
    ids: list[np.ndarray]
    overlaps: list[np.ndarray]
    shown: list[np.ndarray]


def track(segmenter: openvis.VideoSegmenter, sequence: Sequence) -> Tracked:
    ids, overlaps, shown = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    shared, own = dict[int, np.ndarray](), dict[int, int]()
    for frame in segmenter.track(sequence.frames):
        masks, true = frame.masks.to_dense(), sequence.masks[:, frame.index]
        common = np.einsum("ohw,nhw->on", true.astype(np.float32), masks.astype(np.float32))
        union = true.sum((1, 2))[:, None] + masks.sum((1, 2))[None] - common
        there = true.any((1, 2))
        ids.append(frame.track_ids.astype(int))
        shown.append(np.flatnonzero(there))
        overlaps.append((common / np.maximum(union, 1))[there])
        for column, number in enumerate(frame.track_ids.tolist()):
            shared[number] = shared.get(number, 0) + common[:, column]
            own[number] = own.get(number, 0) + int(masks[column].sum())
    tracks = segmenter.finish()
    best = [shared[each.track_id] / max(own[each.track_id], 1) for each in tracks]
    objects = [int(each.argmax()) if each.max() > COVERED else -1 for each in best]
    return Tracked(tracks, np.array(objects, int), ids, overlaps, shown)


def linked(found: Tracked, threshold: float) -> np.ndarray:
    """Returns the identity of each track."""
    if not found.tracks:
        return np.zeros(0, int)
    return link(
        np.stack([each.embedding.numpy() for each in found.tracks]),
        np.array([each.frames for each in found.tracks], np.int32),
        np.zeros(len(found.tracks), np.int32),
        np.array([(each.first_frame, each.last_frame) for each in found.tracks], np.int32),
        threshold=threshold,
        across=False,
    )[0]


def pairs(found: Tracked, identities: np.ndarray) -> tuple[int, int, int]:
    """Returns the numbers of linked pairs of one object, of linked pairs, and of pairs of one object."""
    objects = found.objects[found.objects >= 0]
    its = identities[found.objects >= 0]
    upper = np.triu(np.ones((len(objects), len(objects)), bool), 1)
    same, joined = (objects[:, None] == objects) & upper, (its[:, None] == its) & upper
    return int((same & joined).sum()), int(joined.sum()), int(same.sum())


def scores(found: Iterator[tuple[Tracked, np.ndarray]]) -> dict[str, float]:
    """Returns HOTA, AssA and IDF1 over all sequences."""
    hota, identity = trackeval.metrics.HOTA(), trackeval.metrics.Identity({"PRINT_CONFIG": False})
    results = {"hota": dict[str, object](), "identity": dict[str, object]()}
    for number, (its, identities) in enumerate(found):
        of = {each.track_id: int(name) for each, name in zip(its.tracks, identities, strict=True)}
        ids = [np.array([of[each] for each in frame.tolist()], int) for frame in its.ids]
        objects = np.unique(np.concatenate(its.shown))
        data = {
            "num_timesteps": len(ids),
            "num_gt_ids": len(objects),
            "num_tracker_ids": int(identities.max(initial=-1)) + 1,
            "num_gt_dets": sum(map(len, its.shown)),
            "num_tracker_dets": sum(map(len, ids)),
            "gt_ids": [np.searchsorted(objects, each) for each in its.shown],
            "tracker_ids": ids,
            "similarity_scores": its.overlaps,
        }
        results["hota"][str(number)] = hota.eval_sequence(data)
        results["identity"][str(number)] = identity.eval_sequence(data)
    of_hota, of_identity = hota.combine_sequences(results["hota"]), identity.combine_sequences(results["identity"])
    return {
        "HOTA": float(of_hota["HOTA"].mean()),
        "AssA": float(of_hota["AssA"].mean()),
        "IDF1": float(of_identity["IDF1"]),
    }


def main() -> None:
    torch.set_num_threads(1)
    names = [category.name for category in CATEGORIES]
    segmenter = openvis.VideoSegmenter(openvis.load(), names, tracker=VideoTrackerConfig(max_gap=2))
    print("| | threshold | precision | recall | HOTA | AssA | IDF1 |\n|---|---:|---:|---:|---:|---:|---:|")
    for make in (gaps, cuts):
        found = [track(segmenter, make(index)) for index in range(VIDEOS)]
        alone = scores((each, np.arange(len(each.tracks))) for each in found)
        print(f"| {make.__name__} | none | – | – | {' | '.join(f'{100 * value:.1f}' for value in alone.values())} |")
        for threshold in THRESHOLDS:
            its = [(each, linked(each, threshold)) for each in found]
            right, joined, same = np.sum([pairs(*each) for each in its], axis=0)
            cells = [f"{100 * value:.1f}" for value in (right / max(joined, 1), right / max(same, 1))]
            cells += [f"{100 * value:.1f}" for value in scores(iter(its)).values()]
            print(f"| {make.__name__} | {threshold} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
