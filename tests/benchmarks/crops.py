"""Do N masked crops through CLIP name objects as well as InstCLIP? Tables 4 and 5, with the built-in model.

python -m tests.benchmarks.crops

Proposals and tracks are the built-in model's, linked by Hungarian matching of queries, on videos of novel categories,
with all 1,000 names. The rows differ in the instance tokens alone: those of InstCLIP as it was trained, and those of
its CLIP for masked crops, which are as large as the pictures that it was trained with. It takes two minutes of CPU
time.
"""

import heapq
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

import openvis_model as openvis
from openvis_model.instances import Instances
from openvis_model.options import AssociationConfig, VideoTrackerConfig
from openvis_model.rle import RleMasks, encode
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.video_tracker import TrackerState, VideoTracker
from openvis_model.vocabulary import Vocabulary
from openvis_model.weights.checkpoint import load_checkpoint
from openvis_model.weights.files import BUILT_IN
from pipelines.datasets.annotations import AnnotatedTrack, AnnotatedVideo, Category, GroundTruth, Mask, PredictedTrack
from pipelines.metrics.intervals import paired_difference
from pipelines.metrics.open_vocabulary import open_vocabulary
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.render import Clip, render
from pipelines.shapes.scenes import SceneConfig

VIDEOS, SEED = 80, 200
TOP_K = 10
NUMBERS = ("AP", "micro/AP", "top1", "agnostic/AP")


def with_tokens_of(crops: nn.Module, frame: Tensor, instances: Instances) -> Instances:
    """Returns the same proposals of a frame [H, W, 3] with the tokens of their crops."""
    masks = torch.where(torch.from_numpy(instances.masks.to_dense()), 1.0, -1.0)
    tokens: Tensor = crops(frame[None], masks[None], instances.query_index[None])[0]
    return replace(instances, instance_tokens=tokens)


def predict(tracker: VideoTracker, frames: Sequence[Instances], video: int) -> list[PredictedTrack]:
    """Tracks a video, and returns its best pairs of track and name."""
    state, masks = TrackerState(), dict[int, list[Mask | None]]()
    for index, instances in enumerate(frames):
        state, tracked = tracker.step(state, index, instances)
        for track, mask in zip(tracked.track_ids.tolist(), _masks(instances.masks), strict=True):
            masks.setdefault(track, [None] * len(frames))[index] = mask
    pairs = ((best.score, track.track_id, best.category_id) for track in tracker.finish(state)[1] for best in track.top)
    return [
        PredictedTrack(video_id=video, category_id=category + 1, score=score, masks=tuple(masks[track]))
        for score, track, category in heapq.nlargest(TOP_K, pairs, key=lambda pair: pair[0])
    ]


def annotate(clips: Sequence[Clip]) -> GroundTruth:
    """Returns the objects of the clips."""
    tracks = [
        (number, category, _masks(encode(torch.from_numpy(masks))))
        for number, clip in enumerate(clips, 1)
        for category, masks in zip(clip.categories, clip.masks, strict=True)
    ]
    return GroundTruth(
        path="crops.py",
        sha256="",
        videos=tuple(
            AnnotatedVideo(id=number, height=clip.frames.shape[1], width=clip.frames.shape[2], length=len(clip.frames))
            for number, clip in enumerate(clips, 1)
        ),
        categories=tuple(Category(id=number, name=each.name, partition=3) for number, each in enumerate(CATEGORIES, 1)),
        tracks=tuple(
            AnnotatedTrack(
                id=number, video_id=video, category_id=int(category) + 1, masks=masks, areas=(None,) * len(masks)
            )
            for number, (video, category, masks) in enumerate(tracks, 1)
        ),
    )


def _masks(masks: RleMasks) -> list[Mask | None]:
    """Returns masks as in a file; None for one without pixels."""
    return [
        Mask(*masks.size, rle["counts"]) if area else None
        for rle, area in zip(masks.to_coco(), masks.areas.tolist(), strict=True)
    ]


@torch.inference_mode()
def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    model = openvis.load()
    crops = load_checkpoint(BUILT_IN, classifier="crop_clip").classifier
    names = Vocabulary.of_dataset([category.name for category in CATEGORIES])
    config = SceneConfig()
    association = AssociationConfig(kind="hungarian", token="query", min_similarity=-1.0)
    tracker = VideoTracker(
        VideoTrackerConfig(association=association, objectness_threshold=0.0, max_gap=config.frames),
        embed_vocabulary(names, model.text_encoder),
        top=TOP_K,
    )
    clips = [render(config, "novel", SEED, index) for index in range(VIDEOS)]
    truth = annotate(clips)
    predictions: dict[str, list[PredictedTrack]] = {"N crops": [], "InstCLIP": []}
    for number, clip in enumerate(clips, 1):
        frames = torch.from_numpy(clip.frames)
        found = [each for part in frames.split(8) for each in model(part)]
        cropped = [with_tokens_of(crops, frame, each) for frame, each in zip(frames, found, strict=True)]
        predictions["N crops"] += predict(tracker, cropped, number)
        predictions["InstCLIP"] += predict(tracker, found, number)
    print(f"{VIDEOS} videos, {len(truth.tracks)} objects\n")
    print(f"| | {' | '.join(NUMBERS)} |\n|---|{'---|' * len(NUMBERS)}")
    for name, tracks in predictions.items():
        numbers = open_vocabulary(truth, tracks)
        print(f"| {name} | {' | '.join(f'{100 * numbers[number]:.1f}' for number in NUMBERS)} |")
    pair = (predictions["InstCLIP"], predictions["N crops"])
    differences = [paired_difference(truth, [pair], name=number) for number in NUMBERS]
    intervals = [f"{100 * low:+.1f} to {100 * high:+.1f}" for _, low, high, _ in differences]
    print(f"| difference, 95 % interval | {' | '.join(intervals)} |")


if __name__ == "__main__":
    main()
