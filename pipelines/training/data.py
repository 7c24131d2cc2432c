"""A training set: its videos, their masks, and how clips are made of them.

`checks.open_training_data` reads and checks all of it once. Masks are a few large arrays, which decoders share.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int64, UInt8

from openvis_model.options import SIZE_DIVISOR
from pipelines.archive.config import Reviewed
from pipelines.datasets.annotations import Federation
from pipelines.training.augmentation import AugmentationConfig
from pipelines.video.plan import VideoPlan


@dataclass(frozen=True, kw_only=True)
class TrainingDataConfig(AugmentationConfig):
    """A data set, and the clips to make of it.

    Attributes:
        annotations: file in the format of YouTube-VIS (also OVIS, LV-VIS, UVO, Shapes), BURST, or COCO (also LVIS); or,
            for `labels`, the output of a labelling run, local or in the cloud, whose videos are where they were.
        videos: folder that the paths in the annotations are relative to; default: the folder of the annotations.
        format: format of the annotations. Still images of COCO become clips in which a window moves over the image.
        reviewed: which `labels` are trained on: `only` tracks that reviewers accepted or renamed, with rejected ones as
            background; `respect` all labels but what was decided otherwise; `ignore` the labels as they are.
        frames: frames per clip.
        max_stride: largest distance between frames of a clip, in frames of the video; smaller in short videos.
        height: height of the finished frames, pixels, a multiple of 32.
        width: width of the finished frames, pixels, a multiple of 32.
        categories: `base` trains on categories of partition 0 or 1, or without a partition, and refuses tracks of
            others; `all` trains on every category.
        seed: seed of the clips.
        weight: its share of the clips, relative to the weights of other data sets that are trained on with it.

    Raises:
        ValueError: a field is out of range.
    """

    annotations: str
    videos: str | None = None
    format: Literal["ytvis", "burst", "coco", "labels"] = "ytvis"
    reviewed: Reviewed = "only"
    frames: int = 2
    max_stride: int = 1
    height: int = 384
    width: int = 640
    categories: Literal["base", "all"] = "base"
    seed: int = 0
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("frames", 1), ("max_stride", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight: expected more than 0, got {self.weight}; leave the data set out instead")
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < 1 or value % SIZE_DIVISOR:
                raise ValueError(f"{name}: expected a multiple of {SIZE_DIVISOR} pixels, got {value}")
        for name, value, known in (
            ("format", self.format, ("ytvis", "burst", "coco", "labels")),
            ("reviewed", self.reviewed, get_args(Reviewed)),
            ("categories", self.categories, ("base", "all")),
        ):
            if value not in known:
                raise ValueError(f"{name}: unknown value {value!r}; choose one of {', '.join(known)}")
        if self.format == "labels" and self.videos is not None:
            raise ValueError("videos: labels say where their videos are; leave it out")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the finished frames, pixels."""
        return self.height, self.width


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingVideo:
    """A video whose files match its annotation.

    Attributes:
        id: id in the annotations.
        height: pixels.
        width: pixels.
        length: frames.
        files: paths of one encoded file, or of an image per frame; of labels, the path or URI of the labelled video.
        version: ETag or generation of a video in the cloud; empty for local files.
        plan: index of the encoded file, cut at every key frame; None for images.
        frames: index in the encoded file of each frame; None if all of its frames are annotated.
        federation: which rows of the training vocabulary are known to be absent from an image, or are annotated in
            part; None if everything is annotated.
    """

    id: int
    height: int
    width: int
    length: int
    files: tuple[str, ...]
    version: str = ""
    plan: VideoPlan | None = None
    frames: Int64[np.ndarray, " F"] | None = None
    federation: Federation | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackTable:
    """The N tracks of V videos, with M non-empty masks; sorted by video, track and frame.

    Attributes:
        categories: category of each track, a row of the training vocabulary.
        frames: frame of each mask, a position in its video.
        first_track: first track of each video; its last element is N.
        first_mask: first mask of each track; its last element is M.
        first_character: first character of each mask; its last element is the length of `text`.
        text: COCO compressed run lengths of all masks.
    """

    categories: Int64[np.ndarray, "N"]
    frames: Int64[np.ndarray, "M"]
    first_track: Int64[np.ndarray, " V1"]
    first_mask: Int64[np.ndarray, "N+1"]
    first_character: Int64[np.ndarray, "M+1"]
    text: UInt8[np.ndarray, "L"]

    def tracks(self, video: int) -> range:
        """Returns the rows of a video's tracks."""
        return range(int(self.first_track[video]), int(self.first_track[video + 1]))

    def shown(self, video: int) -> Int64[np.ndarray, " F"]:
        """Returns the frames of a video in which an object is visible, ascending."""
        first, last = self.first_mask[self.first_track[video : video + 2]]
        return np.unique(self.frames[first:last])

    def counts(self, track: int, frame: int) -> bytes | None:
        """Returns the run lengths of a track in a frame; None if the object is absent."""
        first, last = self.first_mask[track : track + 2]
        mask = int(first + np.searchsorted(self.frames[first:last], frame))
        if mask == last or self.frames[mask] != frame:
            return None
        return self.text[self.first_character[mask] : self.first_character[mask + 1]].tobytes()


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """A checked data set.

    Attributes:
        config: its settings.
        sha256: hash of the annotations.
        names: the training vocabulary, in the order of the annotations.
        videos: its videos, in the order of the annotations.
        tracks: the objects in them.
        crowds: number of annotated groups of objects, which are not training targets.
        empty: number of annotations in the format of COCO that have no pixel; they are left out. COCO itself has some.
    """

    config: TrainingDataConfig
    sha256: str
    names: tuple[str, ...]
    videos: Sequence[TrainingVideo]
    tracks: TrackTable
    crowds: int
    empty: int = 0
