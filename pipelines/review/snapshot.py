"""Writes a review as a folder that any static host can show, without a server of ours.

    snapshot.json               what the folder is, and which data the page shows; written last
    index.html, *.js, …         the page; `api.js` is another one, which reads files instead of asking a server
    data-ID/tracks.parquet      a row per track, highest score first
    data-ID/videos.parquet      a row per video
    data-ID/embeddings.bin      a byte per number, in the order of the tracks; absent if it were too large
    data-ID/NUMBER/…            of each video with tracks: about.json, masks.parquet, film.mp4, TRACK.jpg

A snapshot that breaks off leaves a folder whose `snapshot.json` names no data, or still the data before; the next one
removes what it left.
"""

import json
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.review.decided import Row
from pipelines.review.images import Frames
from pipelines.review.preview import Pictures, picture
from pipelines.review.server import PAGE
from pipelines.review.session import Review
from pipelines.storage.files import Storage, bad_input
from pipelines.video.options import Limits
from pipelines.video.plan import VideoError

SNAPSHOT = "snapshot.json"

GROUP = 4096
"""Tracks in a row group: what a browser reads at least."""

EMBEDDING_BYTES = 64 * 2**20
"""Size from which on embeddings are left out: a browser reads them all."""

_FORMAT = "openvis review snapshot 1"
_OWN = Path(__file__).parent / "snapshot_page"
_MASK_GROUP = 2048
_OF_PIECE = ("split_at", "action", "category", "merged_with", "stale")  # not who decided: a snapshot may be public
_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self' data:; base-uri 'none'; form-action 'none'"
)
"""A browser asks nobody but the host, whatever is in a name."""

_META = f'<meta http-equiv="Content-Security-Policy" content="{_SECURITY}" />\n    <title>'


@dataclass(frozen=True, kw_only=True)
class SnapshotSummary:
    """What was written.

    Attributes:
        videos: number of videos with tracks.
        tracks: number of their tracks.
        size: bytes of all files.
        failures: why a video has no pictures, by its URI.
    """

    videos: int
    tracks: int
    size: int
    failures: dict[str, str] = field(default_factory=dict)


def write_snapshot(
    review: Review, output: str, report: Callable[[int, int], None] = lambda done, total: None
) -> SnapshotSummary:
    """Writes the tracks, videos and decisions as they are now; several videos at a time.

    Args:
        review: a review whose embeddings are loaded.
        output: a folder, local or in the cloud, that is empty or has an earlier snapshot, which is replaced.
        report: called with the number of finished videos and that of all.

    Raises:
        ValueError: the folder holds something else or cannot be written to, or the labels are damaged or were rewritten
            meanwhile.
        RuntimeError: another snapshot was written to the folder meanwhile.
        OSError: the storage failed.
    """
    if review.search.embeddings.error:
        raise ValueError(f"labels: {review.search.embeddings.error}")
    target = _Target.begin(Storage(output))
    videos = review.catalogue.videos()
    tracks = review.catalogue.table()
    numbers = list(dict.fromkeys(tracks["video"].to_pylist()))
    failures: dict[str, str] = {}
    missing: dict[tuple[int, int], str] = {}
    frames = Frames(Limits())

    def write(number: int) -> None:
        found = _write_video(review, target, videos[number]["video_id"], number, frames)
        missing.update({(number, track): reason for track, reason in found.missing.items()})
        if not found.crops:
            failures[videos[number]["uri"]] = next(iter(found.missing.values()))

    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        try:
            for done, _ in enumerate(pool.map(write, sorted(numbers)), start=1):
                report(done, len(numbers))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    dimension = _write_embeddings(review, target, tracks)
    sizes = {
        "tracks": target.put_table("tracks.parquet", _track_table(review, tracks, videos, missing), GROUP),
        "videos": target.put_table("videos.parquet", _video_table(videos), GROUP),
    }
    off = None if dimension else "the archive has too many tracks for a snapshot to hold their embeddings"
    target.put_page()
    target.finish({"sizes": sizes, "dimension": dimension, "archive": _archive(review, target.id, off)})
    return SnapshotSummary(videos=len(numbers), tracks=tracks.num_rows, size=target.size, failures=failures)


class _Target:
    """The folder of a snapshot that is being written."""

    def __init__(self, storage: Storage, before: Mapping[str, Any], tag: str) -> None:
        self.storage, self._before, self._tag = storage, before, tag
        self.id = before["writing"][-1]
        self.size = 0
        self._lock = threading.Lock()

    @classmethod
    def begin(cls, storage: Storage) -> "_Target":
        """Makes an entry for a new snapshot beside the one that the folder has."""
        storage.check_writable(option="snapshot")
        with bad_input("snapshot"):
            known = storage.read_tagged(SNAPSHOT)
            before = _parsed(known[0] if known else None)
            if before is None or (known is None and any(True for _ in storage.sizes(".", deep=True))):
                raise ValueError(f"snapshot: {storage.root} holds other files; give an empty folder, or a snapshot's")
            before = {**before, "writing": [*before["writing"], f"data-{uuid.uuid4().hex[:12]}"]}
            tag = storage.replace_tagged(SNAPSHOT, json.dumps(before).encode(), known and known[1])
        if tag is None:
            raise ValueError(f"snapshot: another snapshot is being written to {storage.root}; wait until it ends")
        return cls(storage, before, tag)

    def put(self, path: str, data: bytes) -> None:
        """Adds a file to the data."""
        with self.storage.write(f"{self.id}/{path}") as file:
            file.write(data)
        self._count(len(data))

    def put_file(self, path: str, file: Path) -> None:
        """Adds a copy of a local file to the data."""
        self.storage.put(file, f"{self.id}/{path}")
        self._count(file.stat().st_size)

    def put_table(self, path: str, rows: pa.Table, group: int) -> int:
        """Adds a table to the data, in a form that browsers read without further libraries; returns its size, bytes."""
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="snappy", row_group_size=group, store_schema=False)
        data = sink.getvalue().to_pybytes()
        self.put(path, data)
        return len(data)

    def put_page(self) -> None:
        """Writes the page, in which the files of a snapshot replace those of the same name."""
        files = {file.relative_to(folder).as_posix(): file for folder in (PAGE, _OWN) for file in folder.rglob("*.*")}
        for path, file in files.items():
            data = file.read_bytes()
            if path == "index.html":
                data = data.replace(b"<title>", _META.encode(), 1)
            with self.storage.write(path) as copy:
                copy.write(data)
            self._count(len(data))

    def finish(self, content: Mapping[str, Any]) -> None:
        """Makes the page show the new data, then removes the data before.

        Raises:
            RuntimeError: another snapshot has begun or ended since.
        """
        entry = {"format": _FORMAT, "data": self.id}
        left = [name for name in {self._before["data"], *self._before["writing"]} if name not in (None, self.id)]
        new = json.dumps(entry | {"writing": left} | dict(content), ensure_ascii=False).encode()
        tag = self.storage.replace_tagged(SNAPSHOT, new, self._tag)
        if tag is None:
            raise RuntimeError(f"another snapshot was written to {self.storage.root} meanwhile; run it again")
        for name in left:
            self.storage.remove_folder(name)
        self.storage.replace_tagged(SNAPSHOT, json.dumps(entry | {"writing": []} | dict(content)).encode(), tag)

    def _count(self, size: int) -> None:
        with self._lock:
            self.size += size


def _parsed(content: bytes | None) -> dict[str, Any] | None:
    """Returns a `snapshot.json`, or what stands for an absent one; None if it is that of something else."""
    if content is None:
        return {"format": _FORMAT, "data": None, "writing": []}
    try:
        known = json.loads(content)
    except ValueError:
        return None
    return known if isinstance(known, dict) and str(known.get("format")).startswith(_FORMAT[:-1]) else None


def _write_video(review: Review, target: _Target, video_id: str, number: int, frames: Frames) -> Pictures:
    """Writes the files of a video; returns its pictures, or why it has none."""
    folder, about = f"{number:06d}", review.video(video_id)
    video = review.catalogue.video(video_id)
    assert video is not None, "it is in this catalogue"
    masks, reason = review.masks_of(video), None
    with tempfile.TemporaryDirectory(prefix="openvis-snapshot-") as drafts:
        film = Path(drafts, "film.mp4")
        try:
            if not masks.num_rows:
                raise VideoError("it has no masks")
            found = picture(frames, video, masks, film)
            target.put_file(f"{folder}/film.mp4", film)
        except VideoError as error:
            reason = f"the video cannot be read: {error}"
            found = Pictures(missing={track["track_id"]: reason for track in about["tracks"]})
    for track, content in found.crops.items():
        target.put(f"{folder}/{track}.jpg", content)
    for track in about["tracks"]:
        track["pieces"] = list(_shown(track["pieces"]))
        if track["track_id"] not in found.crops:
            found.missing.setdefault(track["track_id"], "the track has no masks")
    counts = pa.compute.struct_field(masks["rle"], "counts")
    rows = pa.table({"frame": masks["frame"], "track_id": masks["track_id"], "counts": counts})
    size = target.put_table(f"{folder}/masks.parquet", rows, _MASK_GROUP)
    first = masks["frame"].combine_chunks().value_counts()
    starts = [0, *pa.compute.cumulative_sum(first.field("counts")).to_pylist()]
    about |= {"playable": reason is None, "missing": reason, "starts": starts, "size": size}
    target.put(f"{folder}/about.json", json.dumps(about).encode())
    return found


def _shown(pieces: list[Row]) -> Iterator[Row]:
    yield from ({name: piece[name] for name in _OF_PIECE} for piece in pieces)


def _track_table(
    review: Review, tracks: pa.Table, videos: list[Row], missing: Mapping[tuple[int, int], str]
) -> pa.Table:
    """Returns the table of tracks: what filters look at, and what a card shows."""
    decided = set(review.decided.tracks())
    keys = list(zip(tracks["video"].to_pylist(), tracks["track_id"].to_pylist(), strict=True))
    ids = [(videos[video]["video_id"], track) for video, track in keys]
    pieces = [
        list(_shown(review.pieces(*key, category))) if key in decided else None
        for key, category in zip(ids, tracks["category"].to_pylist(), strict=True)
    ]
    rows = tracks["row"].to_numpy()
    _, scales, models = review.search.embeddings.codes(rows)
    texts = pa.array([json.dumps(each) if each else None for each in pieces], pa.string())
    shown = tracks.drop_columns("row").append_column("pieces", texts)
    shown = shown.append_column("missing", pa.array([missing.get(key) for key in keys], pa.string()))
    return shown.append_column("scale", pa.array(scales)).append_column("model", pa.array(models))


def _video_table(videos: list[Row]) -> pa.Table:
    return pa.table({name: pa.array([row[name] for row in videos], pa.string()) for name in ("video_id", "name")})


def _write_embeddings(review: Review, target: _Target, tracks: pa.Table) -> int:
    """Writes the embeddings of all tracks in the order of their table; returns their length, 0 if they are too many."""
    codes, _, _ = review.search.embeddings.codes(tracks["row"].to_numpy()[:1])
    dimension = int(codes.shape[1])
    if not dimension or tracks.num_rows * dimension > EMBEDDING_BYTES:
        return 0
    target.put("embeddings.bin", review.search.embeddings.codes(tracks["row"].to_numpy())[0].tobytes())
    return dimension


def _archive(review: Review, name: str, similar_off: str | None) -> Row:
    """Returns what the page shows of the archive; no path on this machine."""
    return review.archive() | {
        "labels": name,
        "reviewer": "",
        "catalogue": name,
        "numbering": name,
        "duplicates": 0,  # its tables do not have them
        "read_only": f"this is a snapshot of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "search_off": "a snapshot has no model that reads texts and images",
        "similar_off": similar_off,
    }
