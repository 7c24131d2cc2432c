"""Tracks that reviewers added to the labels: the table `additions` of an archive.

OUTPUT/additions/VIDEO-TRACK.parquet    one row: a track with its masks, in a file that never changes

Decisions about an added track are rows of `reviews`, like those about any other. Its id, from `FIRST_ID` on, is that of
no labelled track, and random, so that tracks added to a copy of the archive have others. It belongs to the model and
settings of the labels that it was added to: with others, it is stale and left out, as decisions are.
"""

import hashlib
import io
import re
import secrets
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.archive.formats.video_labels import Row, VideoLabels
from pipelines.archive.part_file import naming_damage
from pipelines.archive.reviews import is_stale
from pipelines.archive.schemas import LATER, SCHEMAS
from pipelines.archive.tables import READERS
from pipelines.storage.files import Storage

ADDITIONS = "additions"

FIRST_ID = 1_000_000
"""Least id of an added track."""

_END = 2**31 - 2**20  # pieces of tracks get the ids after the last one, as int32

_MASK = [field for field in SCHEMAS["masks"] if field.name not in ("video_id", "track_id")]

SCHEMA = pa.schema(
    [
        *SCHEMAS["tracks"],
        ("masks", pa.list_(pa.struct(_MASK))),
        ("prompt", pa.string()),  # what was followed
        ("reviewer", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("model_fingerprint", pa.string()),
        ("vocabulary_fingerprint", pa.string()),
        ("config_fingerprint", pa.string()),
    ]
)

_ABOUT = tuple(name for name in SCHEMA.names if name != "masks")
_PRINTS = tuple(name for name in SCHEMA.names if name.endswith("_fingerprint"))
_NAME = re.compile(r"[0-9a-f]{32}-\d{7,10}")


class Additions:
    """The added tracks of an archive, as they are at each call.

    Args:
        storage: the archive's folder.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._read: dict[str, pa.Table] = {}  # all but the masks of each file

    def add(self, track: Row, masks: pa.Table, video: Row, prompt: str, reviewer: str) -> int:
        """Stores a track, which counts once this returns, and returns its id; several reviewers may add at a time.

        Args:
            track: a row of `tracks`, whose id is replaced.
            masks: its rows of `masks`.
            video: the row of its video in `videos`.
            prompt: what was followed.
            reviewer: who adds it.

        Raises:
            OSError: the archive cannot be written to.
        """
        rows = masks.select([field.name for field in _MASK]).to_pylist()
        about = {"masks": rows, "prompt": prompt, "reviewer": reviewer, "time": datetime.now(UTC)}
        row = {**track, "video_id": video["video_id"], **about, **{name: video[name] for name in _PRINTS}}
        while True:
            track_id = FIRST_ID + secrets.randbelow(_END - FIRST_ID)
            content = io.BytesIO()
            pq.write_table(pa.Table.from_pylist([{**row, "track_id": track_id}], SCHEMA), content, compression="zstd")
            path = _path(_name(video["video_id"], track_id))
            if self.storage.replace_tagged(path, content.getvalue(), None) is not None:
                return track_id

    def names(self) -> list[str]:
        """Returns the names of the table's files; skips files of others."""
        paths = (path.removeprefix(f"{ADDITIONS}/") for path in self.storage.list(ADDITIONS))
        names = (path.removesuffix(".parquet") for path in paths if path.endswith(".parquet"))
        return sorted(filter(_NAME.fullmatch, names))

    def tracks(self) -> pa.Table:
        """Reads all added tracks without their masks, also stale ones.

        Raises:
            ValueError: a file is damaged.
        """
        names = self.names()
        new = [name for name in names if name not in self._read]
        with ThreadPoolExecutor(READERS) as pool:
            read = dict(zip(new, pool.map(lambda name: self._file(name, _ABOUT), new), strict=True))
        self._read = {name: self._read[name] for name in names if name in self._read} | read
        return pa.concat_tables([self.none(), *(self._read[name] for name in names)])

    @staticmethod
    def none() -> pa.Table:
        """Returns what `tracks` returns where none was added."""
        return pa.schema([SCHEMA.field(name) for name in _ABOUT]).empty_table()

    def masks(self, tracks: Iterable[Row]) -> pa.Table:
        """Reads the masks of some added tracks, as rows of `masks`; raises as `tracks`."""
        tables = [SCHEMAS["masks"].empty_table()]
        for track in tracks:
            own = {"video_id": track["video_id"], "track_id": track["track_id"]}
            (row,) = self._file(_name(**own), ("masks",)).to_pylist()
            tables.append(pa.Table.from_pylist([{**own, **mask} for mask in row["masks"]], SCHEMAS["masks"]))
        return pa.concat_tables(tables)

    def added_to(self, labels: VideoLabels, tracks: Iterable[Row]) -> VideoLabels:
        """Returns the labels of a video with the tracks that were added to it, given as rows, but for stale ones."""
        added = {row["track_id"]: row for row in tracks if not is_stale(dict(row), dict(labels.row))}
        if not added:
            return labels
        masks = sorted([*labels.masks, *self.masks(added.values()).to_pylist()], key=lambda mask: mask["frame"])
        frames = list(dict.fromkeys(mask["frame"] for mask in masks))
        return replace(labels, tracks=labels.tracks | added, masks=masks, frames=frames)

    def copy_to(self, target: "Additions") -> None:
        """Adds the tracks that another archive lacks.

        Raises:
            ValueError: it has another track of the same video under the same id.
        """
        names, there = set(self.names()), set(target.names())
        with ThreadPoolExecutor(READERS) as pool:
            list(pool.map(partial(self._check_same, target), names & there))
            list(pool.map(partial(self._copy, target), names - there))

    def _copy(self, target: "Additions", name: str) -> None:
        content = self.storage.read_bytes(_path(name))
        if content is not None and target.storage.replace_tagged(_path(name), content, None) is None:
            self._check_same(target, name)

    def _check_same(self, target: "Additions", name: str) -> None:
        path = _path(name)
        if self.storage.read_bytes(path) != target.storage.read_bytes(path):
            text = f"{target.storage.root}/{path} is another track than the one of {self.storage.root}"
            raise ValueError(f"output: {text}; choose another output")

    def _file(self, name: str, columns: Sequence[str]) -> pa.Table:
        path = _path(name)
        with self.storage.read(path) as file, naming_damage(f"{self.storage.root}/{path}"):
            source = pq.ParquetFile(file)
            rows = source.read(list(columns), use_threads=False)
            for column in LATER.intersection(columns).difference(source.schema_arrow.names):
                rows = rows.append_column(column, pa.nulls(len(rows), SCHEMA.field(column).type))
            return rows.select(list(columns)).cast(pa.schema([SCHEMA.field(column) for column in columns]))


def _name(video_id: str, track_id: int) -> str:
    """Returns the name of a track's file; the id of a video may have slashes."""
    return f"{hashlib.sha256(video_id.encode()).hexdigest()[:32]}-{track_id}"


def _path(name: str) -> str:
    return f"{ADDITIONS}/{name}.parquet"
