"""BURST (Athar et al., WACV 2023): its ground truths and results.

Categories are those of LVIS v0.5, as in TAO. Files are read and written by `pipelines.datasets.burst_files`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipelines.datasets.annotations import AnnotatedVideo, Category, Mask
from pipelines.datasets.mask_table import read, select
from pipelines.datasets.run_lengths import boxes as around

CATEGORY_COUNT = 1230  # LVIS v0.5: ids 1 to 1230

# fmt: off
# Distractors of "Opening up Open-World Tracking" (Liu et al., CVPR 2022), as listed in TrackEval's BURST classes.
NOT_EVALUATED = frozenset(
    {20, 63, 108, 180, 188, 204, 212, 247, 303, 403, 407, 415, 490, 504, 507, 513, 529, 567, 569, 588, 672, 691,
     702, 708, 711, 720, 736, 737, 798, 813, 815, 827, 831, 851, 877, 883, 912, 971, 976, 1130, 1133, 1134, 1169,
     1184, 1220}
)

# TAO's categories with `merged`: a key is counted as its value.
MERGED = {504: 347, 720: 347, 912: 529, 967: 529, 207: 554, 153: 943, 201: 1175}

# The 78 categories that COCO also has; the list of BURST's evaluation script.
COMMON = frozenset(
    {4, 13, 34, 35, 36, 41, 45, 58, 60, 78, 79, 81, 91, 95, 99, 118, 126, 133, 139, 154, 174, 185, 211, 221, 229,
     235, 237, 276, 299, 347, 371, 382, 392, 428, 429, 452, 475, 480, 502, 544, 579, 621, 625, 642, 699, 714, 717,
     729, 747, 779, 805, 829, 852, 896, 926, 937, 961, 979, 980, 982, 993, 1001, 1018, 1038, 1057, 1091, 1097, 1099,
     1115, 1117, 1122, 1132, 1135, 1144, 1155, 1162, 1215, 1229}
)
# fmt: on


@dataclass(frozen=True, kw_only=True, eq=False)
class BurstDetections:
    """Masks of a sequence, one per row, frame by frame in the order of the file.

    Attributes:
        frame: position among the sequence's annotated frames.
        track_id: id that is unique within a frame.
        category_id: category of the track, or of the mask where the file gives one; not merged or filtered yet.
        score: 1 in a ground truth and for predictions without a score.
        masks: of the size of the sequence.
        boxes: x, y, width and height around each mask, pixels; None finds them.
    """

    frame: Int64[np.ndarray, "n"]
    track_id: Int64[np.ndarray, "n"]
    category_id: Int64[np.ndarray, "n"]
    score: Float64[np.ndarray, "n"]
    masks: Sequence[Mask]
    boxes: Int64[np.ndarray, "n 4"] | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def select(self, rows: Int64[np.ndarray, "m"] | Bool[np.ndarray, "n"]) -> "BurstDetections":
        """Returns these rows, in this order."""
        return BurstDetections(
            frame=self.frame[rows],
            track_id=self.track_id[rows],
            category_id=self.category_id[rows],
            score=self.score[rows],
            masks=select(self.masks, np.arange(len(self))[rows]),
            boxes=None if self.boxes is None else self.boxes[rows],
        )

    def sides(self) -> Float64[np.ndarray, "n 4"]:
        """Returns `boxes`, as floats."""
        return (around(read([self.masks])) if self.boxes is None else self.boxes).astype(np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class BurstSequence:
    """A sequence of a ground truth.

    Attributes:
        name: split/dataset/seq_name.
        height: pixels.
        width: pixels.
        image_paths: images of the annotated frames.
        times: numbers in the frames' file names, which give their order in time.
        negative: categories that are known to be absent from the sequence.
        not_exhaustive: categories of which not every object is annotated.
        objects: the annotated masks.
    """

    name: str
    height: int
    width: int
    image_paths: tuple[str, ...]
    times: Int64[np.ndarray, " F"]
    negative: frozenset[int]
    not_exhaustive: frozenset[int]
    objects: BurstDetections


@dataclass(frozen=True, kw_only=True, eq=False)
class BurstGroundTruth:
    """A ground truth file.

    Attributes:
        path: the file.
        sha256: hash of its bytes.
        split: train, val or test.
        sequences: in the order of the file.
        categories: categories by the names in the file; scores do not depend on the names.
        warnings: oddities that were accepted, and how often each occurs.
        annotated: whether the file has annotations, which BURST publishes for all of its splits.
    """

    path: str
    sha256: str
    split: str
    sequences: tuple[BurstSequence, ...]
    categories: tuple[Category, ...]
    warnings: Mapping[str, int]
    annotated: Literal[True] = True

    @property
    def videos(self) -> tuple[AnnotatedVideo, ...]:
        """The sequences as videos of their annotated frames, with ids from 1."""
        return tuple(
            AnnotatedVideo(
                id=number,
                height=sequence.height,
                width=sequence.width,
                length=len(sequence.image_paths),
                file_names=tuple(f"{sequence.name}/{path}" for path in sequence.image_paths),
            )
            for number, sequence in enumerate(self.sequences, start=1)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class BurstPredictions:
    """A result file, with detections for each sequence of the ground truth."""

    path: str
    sha256: str
    sequences: tuple[BurstDetections, ...]
    warnings: Mapping[str, int]

    def aligned(self, old: BurstGroundTruth, new: BurstGroundTruth) -> "BurstPredictions":
        """Moves predictions that were read for `old` to the sequences and frames of another ground truth.

        Raises:
            ValueError: `new` has a sequence or a frame that `old` lacks, so its predictions were not read.
        """
        read = {sequence.name: (sequence, rows) for sequence, rows in zip(old.sequences, self.sequences, strict=True)}
        moved = []
        for sequence in new.sequences:
            before, rows = read.get(sequence.name, (None, None))
            if before is None or rows is None or not set(sequence.image_paths) <= set(before.image_paths):
                raise ValueError(
                    f"{new.path}: {old.path} lacks sequence {sequence.name}, or a frame; use files of one set"
                )
            place = {path: frame for frame, path in enumerate(sequence.image_paths)}
            frames = np.array([place.get(path, -1) for path in before.image_paths], np.int64)
            moved.append(replace(rows, frame=frames[rows.frame]).select(frames[rows.frame] >= 0))
        return replace(self, sequences=tuple(moved))
