"""Options of the jobs on a labelled archive. Imports no pyarrow."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from openvis_model.options import Synonyms
from pipelines.storage.outage import STALL_S

PART_MB = 128.0
"""Default target size of a part, 10⁶ bytes."""

KEEP_H = 168.0
"""How long replaced parts are kept, hours; Delta Lake's default."""


@dataclass(frozen=True, kw_only=True)
class CompactConfig:
    """A compaction.

    Attributes:
        labels: folder of the tables, local or in the cloud.
        part_mb: target size of a part, its three files together, 10⁶ bytes.
        keep_h: hours for which replaced parts are kept, for queries that have begun and for older versions.
        repair: starts new Delta Lake logs; older versions can no longer be read.
    """

    labels: str
    part_mb: float = PART_MB
    keep_h: float = KEEP_H
    repair: bool = False

    def __post_init__(self) -> None:
        if not self.part_mb > 0:
            raise ValueError(f"part_mb: expected more than 0, got {self.part_mb}")
        if not self.keep_h >= 0:
            raise ValueError(f"keep_h: expected at least 0, got {self.keep_h}")


FormatName = Literal["youtube_vis", "coco", "cvat", "yolo", "mots", "label_studio", "huggingface", "rerun"]

Reviewed = Literal["only", "respect", "ignore"]
"""Use of decisions: `only` what was decided counts, or all labels but what was decided otherwise, or no decision."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """An export.

    Attributes:
        labels: output of a labelling run, local or in the cloud.
        output: folder of the annotations, local or in the cloud.
        format: `youtube_vis` (masks by track), `coco` (masks by frame), `cvat` (boxes by track, CVAT for video 1.1),
            `yolo` (polygons by frame), `mots` (masks by frame, MOTS text), `label_studio` (boxes by track),
            `huggingface` (masks by track, Parquet) or `rerun` (masks by frame, .rrd; needs rerun-sdk).
        min_score: tracks with a lower score are left out, 0 to 1, unless a reviewer accepted or renamed them.
        max_unknown: tracks with a larger `unknown` are left out, 0 to 1, unless a reviewer accepted or renamed them: no
            category fits them. Those that an earlier version labelled count as known.
        reviewed: what decisions of reviewers do: with `respect` tracks are split, merged, renamed and left out as was
            decided; `only` also leaves out what nobody accepted or renamed, and says of videos with undecided tracks
            what is known; `ignore` writes the labels as they are.
        images: also write the frames as JPEG images, which `jobs.train` reads; reads the videos.
    """

    labels: str
    output: str
    format: FormatName
    min_score: float = 0.0
    max_unknown: float = 1.0
    reviewed: Reviewed = "respect"
    images: bool = False

    def __post_init__(self) -> None:
        _check_reviewed(self.reviewed)
        if self.format not in get_args(FormatName):
            raise ValueError(f"format: unknown value {self.format!r}; choose from {', '.join(get_args(FormatName))}")
        for name in ("min_score", "max_unknown"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0 to 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class RelabelConfig:
    """A relabelling.

    Attributes:
        labels: output of a labelling run, local or in the cloud.
        output: folder of the new tables, local or in the cloud.
        vocabulary: the new names: text file with a category per line, synonyms separated by commas or pictures of it
            (`mug: mug_1.jpg, mug_2.jpg`), or .json file with a list of names per category; local or in the cloud.
        synonyms: how a category with several names or pictures is scored: by the `mean` of their embeddings, or by the
            `best` one for each track.
        checkpoint: checkpoint folder of the model that labelled the videos, local or in the cloud; null is the
            built-in model.
        top: categories listed for a track, the best one included.
        reviewed: `respect` also copies the decisions of reviewers, which then hold for the new labels; `only` leaves
            out videos that nobody decided about; `ignore` copies none.
        stall_s: time for which the storage may be away before the run ends with an error, seconds.
    """

    labels: str
    output: str
    vocabulary: str
    synonyms: Synonyms = "mean"
    checkpoint: str | None = None
    top: int = 5
    reviewed: Reviewed = "respect"
    stall_s: float = STALL_S

    def __post_init__(self) -> None:
        _check_reviewed(self.reviewed)
        if self.top < 1:
            raise ValueError(f"top: expected at least 1, got {self.top}")
        if not 0 < self.stall_s < math.inf:
            raise ValueError(f"stall_s: expected more than 0, got {self.stall_s}")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """A search.

    Attributes:
        labels: output of a labelling run, local or in the cloud.
        text: what to look for, such as "red striped star"; synonyms separated by commas.
        image: pictures of it instead of a text, as in a vocabulary: `cup.jpg`, `cup.jpg box 10 20 200 180` (left, top,
            width and height in pixels), `cup.jpg mask cup_mask.png`, or `track: VIDEO_ID/TRACK_ID`; several are
            separated by commas.
        checkpoint: checkpoint folder of the model that labelled the videos, local or in the cloud; null is the
            built-in model.
        top: tracks listed, the most similar first.
        sheet: also write a PNG with a picture of each track, local or in the cloud; reads their videos.
    """

    labels: str
    text: str | None = None
    image: str | None = None
    checkpoint: str | None = None
    top: int = 10
    sheet: str | None = None

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top: expected at least 1, got {self.top}")
        if (self.text is None) == (self.image is None):
            given = "neither is" if self.text is None else "both are"
            raise ValueError(f"text, image: {given} given; give one of the two")


@dataclass(frozen=True, kw_only=True)
class DuplicatesConfig:
    """A search for near-duplicates.

    Attributes:
        labels: output of a labelling run, local or in the cloud.
        output: the table to write, a .parquet file, local or in the cloud; null is `duplicates.parquet` in the labels,
            where the review page finds it.
        threshold: least cosine between the embeddings of two tracks.
        min_share: least share of the frames of two videos' tracks that have a counterpart in the other video.
        top: pairs that are kept of each track, the most similar ones.
    """

    labels: str
    output: str | None = None
    threshold: float = 0.95
    min_share: float = 0.5
    top: int = 5

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.threshold), ("min_share", self.min_share)):
            if not 0 < value <= 1:
                raise ValueError(f"{name}: expected more than 0 and at most 1, got {value}")
        if self.top < 1:
            raise ValueError(f"top: expected at least 1, got {self.top}")


@dataclass(frozen=True, kw_only=True)
class IdentitiesConfig:
    """A linking of tracks into identities.

    Attributes:
        labels: output of a labelling run, local or in the cloud.
        output: the table to write, a .parquet file, local or in the cloud; null is `identities.parquet` in the labels.
        threshold: least similarity of two tracks, and of the means of two identities: the cosine of embeddings, less
            the distance of mean colours; null is 0.85, and 0.95 across videos, where more tracks look alike.
        across_videos: whether tracks of different videos are linked, too.
    """

    labels: str
    output: str | None = None
    threshold: float | None = None
    across_videos: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"threshold: expected more than 0 and at most 1, got {self.threshold}")

    @property
    def least_similarity(self) -> float:
        """Returns the threshold in effect."""
        if self.threshold is not None:
            return self.threshold
        return 0.95 if self.across_videos else 0.85


def _check_reviewed(value: Reviewed) -> None:
    if value not in get_args(Reviewed):
        raise ValueError(f"reviewed: unknown value {value!r}; choose from {', '.join(get_args(Reviewed))}")
