"""How many tracks of the same object are linked, and how many of different ones? HOTA and IDF1 before and after.

python -m tests.benchmarks.identities

The built-in model tracks Shapes of the hard split with all names. `gaps`: objects hide and leave; a track ends after
two frames out of sight. `cuts`: another scene lies between the two halves of a scene. `videos`: objects of a scene are
in two further ones, at other places, with others beside them; pairs of tracks of two videos count. Each with embeddings
alone and with colours. `COLOUR_SPAN` and the threshold were chosen with other seeds. It takes four minutes of CPU time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import trackeval

import openvis_model as openvis
from openvis_model.options import VideoTrackerConfig
from pipelines.archive.identities import link
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.render import draw, render
from pipelines.shapes.scenes import SceneConfig, invent_scene

VIDEOS, SEED = 40, 31
FRAMES = 24
SCENES, STAYS = 3, 0.7
"""Videos that show objects of one scene, and the share of its objects that are in each further one."""

GREY = 110.0
"""Background of `videos`."""
COVERED = 0.5  # share of a track's pixels that are of one object from which on it is a track of that object
THRESHOLDS = (0.8, 0.85, 0.9, 0.95)


class Scene(NamedTuple):
    """Frames, the mask of each object, and what it is called: objects of one name are one."""

    frames: np.ndarray
    masks: np.ndarray
    names: Sequence[object]


def gaps(index: int) -> list[Scene]:
    clip = render(SceneConfig(frames=2 * FRAMES), "hard", SEED, index)
    return [Scene(clip.frames, clip.masks, range(len(clip.masks)))]


def cuts(index: int) -> list[Scene]:
    """The objects of the scene between are objects, too."""
    outer, inner = (render(SceneConfig(frames=FRAMES), "hard", SEED, number) for number in (index, VIDEOS + index))
    half, none = FRAMES // 2, np.zeros_like
    frames = np.concatenate([outer.frames[:half], inner.frames[:half], outer.frames[half:]])
    first, between, second = outer.masks[:, :half], inner.masks[:, :half], outer.masks[:, half:]
    masks = [
        np.concatenate([first, none(first), second], axis=1),
        np.concatenate([none(between), between, none(between)], axis=1),
    ]
    return [Scene(frames, np.concatenate(masks), range(len(first) + len(between)))]


def videos(index: int) -> list[Scene]:
    """Objects that stay keep category, brightness and mean size; places, paths and the other objects are new."""
    rng = np.random.Generator(np.random.PCG64([SEED, index]))
    config, scenes = SceneConfig(frames=FRAMES), list[Scene]()
    cast = invent_scene(config, "hard", rng)
    while len(scenes) < SCENES:
        actors, number = invent_scene(config, "hard", rng), len(scenes)
        names: list[object] = [(index, number, place) for place in range(len(actors))]
        for role, place in enumerate(rng.permutation(len(actors))[: len(cast)].tolist()):
            if not number or rng.random() < STAYS:
                one, size = cast[role], actors[place].size
                size = size * (one.size.mean() / size.mean())
                actors[place] = replace(actors[place], category=one.category, light=one.light, size=size)
                names[place] = (index, role)
        clip = draw(np.full((config.height, config.width, 3), GREY, np.float32), actors)
        if len(clip.masks) == len(actors):  # all can be seen
            scenes.append(Scene(clip.frames, clip.masks, names))
    return scenes


class Tracked(NamedTuple):
    """What was found in a scene: the tracks, the object of each (None for none), and what TrackEval compares."""

    tracks: list[openvis.Track]
    objects: list[object]
    ids: list[np.ndarray]
    overlaps: list[np.ndarray]
    shown: list[np.ndarray]


def track(segmenter: openvis.VideoSegmenter, scene: Scene) -> Tracked:
    ids, overlaps, shown = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    shared, own = dict[int, np.ndarray](), dict[int, int]()
    for frame in segmenter.track(scene.frames):
        masks, true = frame.masks.to_dense(), scene.masks[:, frame.index]
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
    objects = [scene.names[int(each.argmax())] if each.max() > COVERED else None for each in best]
    return Tracked(tracks, objects, ids, overlaps, shown)


def linked(found: Sequence[Tracked], threshold: float, *, colours: bool) -> list[np.ndarray]:
    """Returns the identity of each track of each of some videos, linked across them if there are several."""
    tracks, counts = [each for its in found for each in its.tracks], [len(its.tracks) for its in found]
    if not tracks:
        return [np.zeros(0, int)] * len(found)
    identities, _ = link(
        np.stack([each.embedding.numpy() for each in tracks]),
        np.array([each.frames for each in tracks], np.int32),
        np.repeat(np.arange(len(found), dtype=np.int32), counts),
        np.array([(each.first_frame, each.last_frame) for each in tracks], np.int32),
        np.stack([each.colour.numpy() if colours else np.full(3, np.nan, np.float32) for each in tracks]),
        threshold=threshold,
        across=len(found) > 1,
    )
    return np.split(identities, np.cumsum(counts)[:-1])


def pairs(found: Sequence[Tracked], identities: Sequence[np.ndarray]) -> tuple[int, int, int]:
    """Returns the numbers of linked pairs of one object, of linked pairs, and of pairs of one object.

    Pairs are of one video if there is one, otherwise of two.
    """
    names = {name: number for number, name in enumerate({name for its in found for name in its.objects} - {None})}
    objects = np.array([names.get(name, -1) for its in found for name in its.objects], int)
    video = np.repeat(np.arange(len(found)), [len(its.objects) for its in found])
    its, covers = np.concatenate(identities), objects >= 0
    objects, video, its = objects[covers], video[covers], its[covers]
    counted = np.triu(np.ones((len(objects), len(objects)), bool), 1)
    if len(found) > 1:
        counted &= video[:, None] != video
    same, joined = (objects[:, None] == objects) & counted, (its[:, None] == its) & counted
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
    print(
        "| | compared | threshold | precision | recall | HOTA | AssA | IDF1 |\n|---|---|---:|---:|---:|---:|---:|---:|"
    )
    for make in (gaps, cuts, videos):
        groups = [[track(segmenter, scene) for scene in make(index)] for index in range(VIDEOS)]
        within = make is not videos
        if within:
            alone = scores((each, np.arange(len(each.tracks))) for (each,) in groups)
            print(f"| {make.__name__} | tracks alone | | | | {' | '.join(map(percent, alone.values()))} |")
        found = groups if within else [[each for group in groups for each in group]]
        for colours in (False, True):
            for threshold in THRESHOLDS:
                its = [linked(each, threshold, colours=colours) for each in found]
                right, joined, same = np.sum([pairs(*each) for each in zip(found, its, strict=True)], axis=0)
                cells = [percent(right / max(joined, 1)), percent(right / max(same, 1))]
                if within:
                    after = scores((each, name) for (each,), (name,) in zip(found, its, strict=True))
                    cells += map(percent, after.values())
                compared = "embeddings and colours" if colours else "embeddings"
                print(f"| {make.__name__} | {compared} | {threshold} | {' | '.join(cells)} |", flush=True)


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
