"""Small ground truths and predictions for tests."""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco

from pipelines.datasets.annotations import AnnotatedTrack, AnnotatedVideo, Category, GroundTruth, Mask, PredictedTrack

Masks = Sequence[Mask | None]


def encode(dense: np.ndarray) -> Mask:  # type: ignore[type-arg]
    return Mask(*dense.shape, coco.encode(np.asfortranarray(dense.astype(np.uint8)))["counts"])


def strip(start: int, stop: int, size: tuple[int, int] = (1, 400)) -> Mask:
    """A mask of `stop` - `start` pixels, in columns, from the top down."""
    dense = np.zeros(size[0] * size[1], bool)
    dense[start:stop] = True
    return encode(dense.reshape(size[1], size[0]).T)


def area(mask: Mask | None) -> float | None:
    return None if mask is None else float(coco.area({"size": mask[:2], "counts": mask.counts}))


def track(
    masks: Masks,
    *,
    number: int = 1,
    video: int = 1,
    category: int = 1,
    areas: Sequence[float | None] = (),
    crowd: bool = False,
) -> AnnotatedTrack:
    stated = tuple(areas) or tuple(area(mask) for mask in masks)
    return AnnotatedTrack(
        id=number, video_id=video, category_id=category, masks=tuple(masks), areas=stated, crowd=crowd
    )


def guess(masks: Masks, score: float = 0.5, *, video: int = 1, category: int = 1) -> PredictedTrack:
    return PredictedTrack(video_id=video, category_id=category, score=score, masks=tuple(masks))


def truth(*tracks: AnnotatedTrack, categories: Sequence[int] = (1,), videos: Sequence[int] = (1,)) -> GroundTruth:
    return GroundTruth(
        path="truth.json",
        sha256="",
        videos=tuple(AnnotatedVideo(id=number, height=1, width=400, length=1) for number in videos),
        categories=tuple(Category(id=number, name=f"{number}", partition=number % 4) for number in categories),
        tracks=tracks,
    )


def random_tube(rng: np.random.Generator, height: int, width: int, length: int) -> list[Mask | None]:
    """A rectangle, sometimes with holes, absent or empty."""
    masks: list[Mask | None] = []
    y, x = rng.integers(0, height - 4), rng.integers(0, width - 4)
    h, w = rng.integers(1, height - y + 1), rng.integers(1, width - x + 1)
    for _ in range(length):
        dense = np.zeros((height, width), bool)
        if rng.random() < 0.9:
            dense[y : y + h, x : x + w] = True
            masks.append(encode(dense & (rng.random(dense.shape) < rng.choice([1, 0.9]))))
        else:
            masks.append(None if rng.random() < 0.5 else encode(dense))
    return masks


def random_data(seed: int) -> tuple[GroundTruth, list[PredictedTrack]]:
    """Videos of odd sizes with everything that evaluators treat differently: ties, crowds, absent and empty masks."""
    rng = np.random.default_rng(seed)
    sizes = [(9, 13), (40, 31), (300, 280)]
    objects, predictions = [], []
    videos = rng.permutation(np.arange(2, 9)).tolist()
    for video in videos:
        height, width = sizes[video % 3]
        length = int(rng.integers(1, 5))

        its = [random_tube(rng, height, width, length) for _ in range(rng.integers(0, 5))]
        for masks in its:
            number = len(objects) + int(seed % 2)
            kind, crowd = int(rng.integers(1, 4)), bool(rng.random() < 0.15)
            objects.append(track(masks, number=number, video=video, category=kind, crowd=crowd))
        for _ in range(rng.integers(0, 25)):
            masks = (
                list(its[rng.integers(len(its))])
                if its and rng.random() < 0.7
                else random_tube(rng, height, width, length)
            )
            if rng.random() < 0.5:
                masks[rng.integers(length)] = None
            kind, score = int(rng.choice([1, 2, 3, 4, 7])), float(rng.integers(0, 6)) / 5
            predictions.append(
                guess(masks[: rng.integers(max(1, length - 1), length + 1)], score, video=video, category=kind)
            )
    order = rng.permutation(len(predictions))
    return truth(*objects, categories=[4, 2, 1, 3], videos=videos), [predictions[i] for i in order]
