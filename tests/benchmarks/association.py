"""Which association keeps look-alikes apart? HOTA, AssA and IDF1 of the same instances, at three frame rates.

python -m tests.benchmarks.association [NAME=CHECKPOINT ...]

All rows link the same instances of the same videos, of the split crossing, and differ in the association alone.
`annotated` instances are the objects themselves: an object has its own mask, the instance token that InstCLIP makes of
it, and the query of the proposal that covers it best. `proposed` ones are the model's that labelling keeps; the row
`annotations` gives each object the one that overlaps it best, which is as good as linking can be. `matched` instances
are the proposals of that row, without the false and the double ones. Tracks begin and end as in labelling, but no match
of tokens is refused, except in the row with labelling's gate; boxes must overlap. Each checkpoint, the built-in model
without any, adds the rows of its rollout tracker; the instances are those of the first, so the others may differ in the
tracker only. Checkpoints of one name are seeds, whose mean is compared. The last column is a 95 % interval, of 1,000
resamples of the videos: of the difference to the first rollout row, or of that between the two of a pair. With one
checkpoint it takes eight minutes of CPU time.
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import trackeval
from jaxtyping import Bool, Float64, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import openvis_model as openvis
from openvis_model.frame_model import FrameModel
from openvis_model.instances import Instances
from openvis_model.options import AssociationConfig, VideoTrackerConfig
from openvis_model.proposals import Proposals
from openvis_model.rle import encode
from openvis_model.rollout_tracker import RolloutTracker
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.video_tracker import TrackerState, VideoTracker
from openvis_model.vocabulary import Vocabulary, VocabularyEmbedding
from pipelines.metrics.frame_matching import FramePairs
from pipelines.metrics.hota import HotaSums, hota_sums
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.render import Clip, render
from pipelines.shapes.scenes import SceneConfig

VIDEOS, SEED = 60, 51
FRAMES = 96
RATES = (1, 4, 8)
"""One of so many frames is tracked."""

ASSOCIATIONS = {
    "Hungarian, query": AssociationConfig(kind="hungarian", token="query", min_similarity=-1.0),
    "Hungarian, both tokens": AssociationConfig(kind="hungarian", min_similarity=-1.0),
    "running mean, both tokens": AssociationConfig(kind="momentum", min_similarity=-1.0),
    "IoU": AssociationConfig(kind="iou"),
    "SORT": AssociationConfig(kind="sort"),
}
PAIRS = (("Hungarian, both tokens", "Hungarian, query"), ("running mean, both tokens", "Hungarian, both tokens"))
"""Associations that are compared with each other."""

RESAMPLES = 1000
SURE = 8.0  # log-odds of an annotated mask's pixels
LIKELY = VideoTrackerConfig().objectness_threshold


class Video(NamedTuple):
    """Masks of the objects, and the three kinds of instances of each frame."""

    masks: Bool[np.ndarray, "O T H W"]
    annotated: list[Instances]
    matched: list[Instances]
    proposed: list[Instances]


def video(model: FrameModel, clip: Clip) -> Video:
    """Finds the instances of a clip, frame by frame."""
    frames, masks = torch.from_numpy(clip.frames), torch.from_numpy(clip.masks).transpose(0, 1)
    with torch.inference_mode():
        proposed = [each for part in frames.split(8) for each in model(part, objectness_floor=LIKELY)]
        annotated = [
            each
            for part, own in zip(frames.split(8), masks.split(8), strict=True)
            for each in annotated_instances(model, part, own)
        ]
    matched = [taken(each, identities(clip.masks[:, t], each) >= 0) for t, each in enumerate(proposed)]
    return Video(clip.masks, annotated, matched, proposed)


def taken(instances: Instances, chosen: Bool[np.ndarray, "n"]) -> Instances:
    """Returns the chosen ones of the instances."""
    index = torch.from_numpy(np.flatnonzero(chosen))
    return Instances(
        objectness=instances.objectness[index],
        instance_tokens=instances.instance_tokens[index],
        queries=instances.queries[index],
        query_index=instances.query_index[index],
        colours=instances.colours[index],
        masks=instances.masks.take(index.numpy()),
    )


def annotated_instances(model: FrameModel, frames: Tensor, masks: Bool[Tensor, "T O H W"]) -> list[Instances]:
    """Returns the objects in sight as the instances that a perfect proposal network would find."""
    proposals: Proposals = model.mask_proposal(frames)
    index = torch.stack([covering(logits, own) for logits, own in zip(proposals.mask_logits, masks, strict=True)])
    tokens = model.classifier(frames, torch.where(masks, SURE, -SURE), index)
    return [
        Instances(
            objectness=torch.ones(int(shown.sum())),
            instance_tokens=tokens[t, shown],
            queries=proposals.queries[t, index[t, shown]],
            query_index=index[t, shown],
            colours=torch.zeros(int(shown.sum()), 3),
            masks=encode(masks[t, shown]),
        )
        for t, shown in enumerate(masks.any(-1).any(-1))
    ]


def covering(mask_logits: Tensor, masks: Bool[Tensor, "O H W"]) -> Tensor:
    """Returns the query whose mask covers each object best, each query once."""
    found = (F.interpolate(mask_logits[None], size=masks.shape[1:], mode="bilinear")[0] > 0).flatten(1).float()
    own = masks.flatten(1).float()
    common = found @ own.T
    iou = common / (found.sum(1)[:, None] + own.sum(1) - common).clamp(min=1)
    queries, objects = linear_sum_assignment(-iou.numpy())
    return torch.as_tensor(queries[np.argsort(objects)])


class Score(NamedTuple):
    """What a video adds to HOTA, and its data for IDF1."""

    hota: HotaSums
    identity: dict[str, object]


def track(tracker: VideoTracker | None, own: Video, instances: Sequence[Instances], every: int) -> Score:
    """Tracks one of `every` frames of a video; without a tracker, by the annotations."""
    state = TrackerState()
    ids, overlaps, shown = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    for t in range(0, len(instances), every):
        if tracker is None:
            track_ids = identities(own.masks[:, t], instances[t])
        else:
            state, tracked = tracker.step(state, t, instances[t])
            track_ids = tracked.track_ids
        there, linked = own.masks[:, t].any((1, 2)), track_ids >= 0
        found = instances[t].masks.take(np.flatnonzero(linked)).to_dense().astype(np.float32)
        true = own.masks[there, t].astype(np.float32)
        common = np.einsum("ohw,nhw->on", true, found)
        union = true.sum((1, 2))[:, None] + found.sum((1, 2)) - common
        ids.append(track_ids[linked])
        shown.append(np.flatnonzero(there))
        overlaps.append((common / np.maximum(union, 1)).astype(np.float64))
    pairs = FramePairs(
        gt_ids=np.concatenate(shown),
        prediction_ids=np.concatenate(ids),
        gt_counts=np.array([len(each) for each in shown]),
        prediction_counts=np.array([len(each) for each in ids]),
        similarity=np.concatenate([each.ravel() for each in overlaps]),
    )
    objects, tracks = np.unique(pairs.gt_ids), np.unique(pairs.prediction_ids)
    data = {
        "num_gt_ids": len(objects),
        "num_tracker_ids": len(tracks),
        "num_gt_dets": len(pairs.gt_ids),
        "num_tracker_dets": len(pairs.prediction_ids),
        "gt_ids": [np.searchsorted(objects, each) for each in shown],
        "tracker_ids": [np.searchsorted(tracks, each) for each in ids],
        "similarity_scores": overlaps,
    }
    return Score(hota_sums(pairs), trackeval.metrics.Identity({"PRINT_CONFIG": False}).eval_sequence(data))


def identities(masks: Bool[np.ndarray, "O H W"], instances: Instances) -> Int64[np.ndarray, "n"]:
    """Returns the object that each instance is of, each object once; -1 for the others."""
    ids = np.full(len(instances), -1)
    own = masks.reshape(len(masks), -1).astype(np.float32)
    found = instances.masks.to_dense().reshape(len(instances), own.shape[1]).astype(np.float32)
    common = found @ own.T
    iou = common / np.maximum(found.sum(1)[:, None] + own.sum(1) - common, 1)
    rows, objects = linear_sum_assignment(-iou)
    overlapping = iou[rows, objects] > 0
    ids[rows[overlapping]] = objects[overlapping]
    return ids


def association_accuracies(scores: Sequence[Score], weights: Float64[np.ndarray, "R V"]) -> Float64[np.ndarray, "R"]:
    """Returns AssA of R resamples; a weight says how often a video was drawn."""
    association = weights @ np.stack([score.hota.association for score in scores])
    matches = weights @ np.stack([score.hota.tp for score in scores])
    accuracies: np.ndarray = (association / np.maximum(matches, 1)).mean(1)
    return accuracies


def row(name: str, kind: str, every: int, scores: Sequence[Score], reference: Sequence[Score]) -> str:
    """Returns a row of the table; `reference` is what it is compared with."""
    hota = HotaSums.pool([score.hota for score in scores]).summary()
    identity = trackeval.metrics.Identity({"PRINT_CONFIG": False})
    idf1 = identity.combine_sequences({str(number): score.identity for number, score in enumerate(scores)})["IDF1"]
    numbers = " | ".join(f"{100 * value:.1f}" for value in (hota["AssA"], idf1, hota["HOTA"]))
    compared = "" if scores is reference else difference([scores], [reference])
    return f"| {kind} | {every} | {name} | {numbers} | {compared} |"


def difference(some: Sequence[Sequence[Score]], others: Sequence[Sequence[Score]]) -> str:
    """Returns the 95 % interval of the difference in mean AssA of two groups of trackers, in points."""
    videos = len(some[0])
    draws = np.random.default_rng(0).multinomial(videos, np.full(videos, 1 / videos), RESAMPLES)
    one, other = (np.mean([association_accuracies(each, draws) for each in group], 0) for group in (some, others))
    differences = one - other
    low, high = 100 * np.percentile(differences, [2.5, 97.5])
    return f"{low:+.1f} to {high:+.1f}"


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    models, seeds = dict[str, FrameModel](), dict[str, list[str]]()
    for argument in sys.argv[1:] or ["rollout"]:
        name, _, path = argument.partition("=")
        rows = seeds.setdefault(name, [])
        rows.append(f"{name}, seed {len(rows) + 1}" if rows else name)
        models[rows[-1]] = openvis.load(path or None)
    model = next(iter(models.values()))
    names = Vocabulary.of_dataset([category.name for category in CATEGORIES])
    vocabulary = embed_vocabulary(names, model.text_encoder)
    trackers = {
        f"{name}{suffix}": tracker(
            AssociationConfig(kind="rollout", min_similarity=gate), vocabulary, its.rollout_tracker
        )
        for name, its in models.items()
        for suffix, gate in (("", -1.0), (", gate of labelling", None))
    }
    trackers |= {name: tracker(association, vocabulary, None) for name, association in ASSOCIATIONS.items()}

    config = SceneConfig(frames=FRAMES)
    videos = [video(model, render(config, "crossing", SEED, index)) for index in range(VIDEOS)]
    print("| instances | one frame of | association | AssA | IDF1 | HOTA | AssA, difference |")
    print("|---|---:|---|---:|---:|---:|---|")
    for kind in ("annotated", "matched", "proposed"):
        for every in RATES:
            linked: dict[str, list[Score]] = {}
            for name, its in trackers.items():
                linked[name] = [track(its, each, getattr(each, kind), every) for each in videos]
                print(row(name, kind, every, linked[name], next(iter(linked.values()))), flush=True)
            if kind == "proposed":
                ideal = [track(None, each, each.proposed, every) for each in videos]
                print(row("annotations", kind, every, ideal, next(iter(linked.values()))), flush=True)
            for better, worse in PAIRS:
                compared = difference([linked[better]], [linked[worse]])
                print(f"| {kind} | {every} | {better} > {worse} | | | | {compared} |")
            first, *others = ([linked[each] for each in rows] for rows in seeds.values())
            for name, other in zip(list(seeds)[1:], others, strict=True):
                print(f"| {kind} | {every} | {next(iter(seeds))} > {name}, seeds | | | | {difference(first, other)} |")


def tracker(
    association: AssociationConfig, vocabulary: VocabularyEmbedding, rollout: RolloutTracker | None
) -> VideoTracker:
    """Builds a tracker as in labelling."""
    return VideoTracker(VideoTrackerConfig(association=association), vocabulary, rollout)


if __name__ == "__main__":
    main()
