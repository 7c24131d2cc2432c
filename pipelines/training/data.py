"""Annotated videos to train on: which, how clips are made of them, and what their masks are.

`checks.open_training_data` reads and checks everything once. What it returns is pickled to the processes that decode,
which import this file without torch; masks are arrays, so that Ray's processes on one machine share them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt8

from pipelines.training.augmentation import AugmentationConfig
from pipelines.video.plan import VideoPlan

SIZE_DIVISOR = 32
"""Of both sides of finished frames, pixels: what the mask proposal network needs."""


@dataclass(frozen=True, kw_only=True)
class TrainingDataConfig(AugmentationConfig):
    """A data set, and the clips to be made of it.

    Attributes:
        annotations: file in the format of YouTube-VIS (also OVIS, LV-VIS, UVO, Shapes), BURST, or COCO.
        videos: folder that the file's names of videos, frames or images begin in; that of the file if not given.
        format: of the file. COCO's still images become clips in which a window moves over the image.
        frames: frames per clip, T.
        max_stride: most frames from one frame of a clip to the next; less where a video is short.
        height: of the finished frames, pixels, a multiple of 32.
        width: likewise.
        categories: `base` trains on those of partition 0 or 1, or without one, and refuses tracks of others; `all` on
            all.
        seed: another one gives other clips.
    """

    annotations: str
    videos: str | None = None
    format: Literal["ytvis", "burst", "coco"] = "ytvis"
    frames: int = 2
    max_stride: int = 1
    height: int = 384
    width: int = 640
    categories: Literal["base", "all"] = "base"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("frames", 1), ("max_stride", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < 1 or value % SIZE_DIVISOR:
                raise ValueError(f"{name}: expected a multiple of {SIZE_DIVISOR} pixels, got {value}")
        for name, value, known in (
            ("format", self.format, ("ytvis", "burst", "coco")),
            ("categories", self.categories, ("base", "all")),
        ):
            if value not in known:
                raise ValueError(f"{name}: unknown value {value!r}; choose one of {', '.join(known)}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the finished frames, pixels."""
        return self.height, self.width


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingVideo:
    """A video whose files were found to be as annotated.

    Attributes:
        id: in the annotations.
        height: pixels.
        width: pixels.
        length: frames.
        files: paths: one encoded file, or an image per frame.
        plan: index of the encoded file, cut at every key frame; None if there are images.
    """

    id: int
    height: int
    width: int
    length: int
    files: tuple[str, ...]
    plan: VideoPlan | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackTable:
    """The N tracks of V videos, with M masks of one or more pixels. Rows of a video, and of a track, follow each other.

    Attributes:
        categories: of tracks, rows of the training vocabulary.
        frames: of masks, positions in their videos, ascending within a track.
        first_track: of each video its first track, and behind the last one N.
        first_mask: of each track its first mask, and behind the last one M.
        first_character: of each mask, and behind the last one the number of characters.
        text: COCO compressed run lengths of all masks.
    """

    categories: Int64[np.ndarray, "N"]
    frames: Int64[np.ndarray, "M"]
    first_track: Int64[np.ndarray, "V1"]
    first_mask: Int64[np.ndarray, "N+1"]
    first_character: Int64[np.ndarray, "M+1"]
    text: UInt8[np.ndarray, "L"]

    def tracks(self, video: int) -> range:
        """Rows of a video's tracks."""
        return range(int(self.first_track[video]), int(self.first_track[video + 1]))

    def shown(self, video: int) -> Int64[np.ndarray, "F"]:
        """The frames of a video, ascending, in which an object is visible."""
        first, last = self.first_mask[self.first_track[video : video + 2]]
        return np.unique(self.frames[first:last])

    def counts(self, track: int, frame: int) -> bytes | None:
        """The mask of a track in a frame; None if the object is absent."""
        first, last = self.first_mask[track : track + 2]
        mask = int(first + np.searchsorted(self.frames[first:last], frame))
        if mask == last or self.frames[mask] != frame:
            return None
        return self.text[self.first_character[mask] : self.first_character[mask + 1]].tobytes()


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """A data set that was checked.

    Attributes:
        config: what was opened.
        names: the training vocabulary, in the order of the file.
        videos: in the order of the file.
        tracks: what is to be found in them.
        crowds: number of annotated groups of objects, which are no targets.
    """

    config: TrainingDataConfig
    names: tuple[str, ...]
    videos: Sequence[TrainingVideo]
    tracks: TrackTable
    crowds: int
