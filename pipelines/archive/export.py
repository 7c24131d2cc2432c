"""Exports labels as annotations for other tools."""

import re
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.archive.config import ExportConfig
from pipelines.archive.formats.format import Target
from pipelines.archive.formats.registry import FORMATS
from pipelines.archive.formats.video_labels import VideoLabels
from pipelines.archive.tables import Results, open_labels
from pipelines.storage.files import Storage


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """The result of an export.

    Attributes:
        videos: number of videos with tracks.
        tracks: number of their tracks.
        losses: what the format cannot hold, with the tracks that it concerns.
    """

    videos: int
    tracks: int
    losses: tuple[str, ...] = ()


def export_annotations(
    config: ExportConfig, report: Callable[[int, int], None] = lambda done, total: None
) -> ExportSummary:
    """Writes labels as annotations, one video in memory at a time.

    Args:
        config: the export.
        report: called with the number of videos read and the number of all videos.

    Raises:
        ValueError: the labels are missing or damaged, or have no track with such a score; or the format needs a
            package that is not installed.
        OSError: the output cannot be written to.
    """
    results, output = open_labels(config.labels), Storage(config.output)
    names = results.scan("tracks", ("category", "score"), each=lambda rows: _categories(rows, config.min_score))
    categories = {name: number for number, name in enumerate(sorted(set().union(*names)), start=1)}
    if not categories:
        raise ValueError(f"labels: {config.labels} has no tracks with a score of {config.min_score} or more")
    output.check_writable()
    total = sum(map(len, results.counting().values()))
    looked_at = tracks = 0
    written = set[str]()

    def counted() -> Iterator[VideoLabels]:
        nonlocal looked_at, tracks
        for video in _videos(results, config.min_score):
            looked_at += 1
            if video.tracks:
                written.add(video.row["video_id"])
                tracks += len(video.tracks)
                yield video
            report(looked_at, total)

    form, target = FORMATS[config.format], Target(storage=output, categories=categories)
    form.write(counted(), target)
    if form.files_of_video:
        _remove_earlier(results, output, form.files_of_video, written)
    return ExportSummary(videos=len(written), tracks=tracks, losses=target.losses.lines())


def _remove_earlier(results: Results, output: Storage, files_of_video: Iterable[str], written: Set[str]) -> None:
    """Removes files of an earlier export for videos that have no tracks now."""
    possible = {video_id for ids in results.counting().values() for video_id in ids.to_pylist()}
    for path, _ in list(output.sizes(".", deep=True)):
        for match in filter(None, (re.fullmatch(pattern, path) for pattern in files_of_video)):
            if match[1] in possible and match[1] not in written:
                output.remove(path)


def _categories(tracks: pa.Table, min_score: float) -> set[str]:
    return set(tracks.filter(pc.field("score") >= min_score)["category"].unique().to_pylist())


def _videos(results: Results, min_score: float) -> Iterator[VideoLabels]:
    """Yields each video once; if a compaction replaces parts meanwhile, continues with the new ones."""
    todo = dict(results.counting())
    while todo:
        part = next(iter(todo))
        ids = todo.pop(part)
        done: list[str] = []
        try:
            for video in _videos_of_part(results, part, ids, min_score):
                done.append(video.row["video_id"])
                yield video
        except FileNotFoundError:
            if part in results.parts():
                raise
            rest = ids.filter(pc.invert(pc.is_in(ids, pa.array(done, pa.string()))))
            for other, video_ids in results.counting(rest).items():
                todo[other] = pa.concat_arrays([video_ids, todo[other]]) if other in todo else video_ids


def _videos_of_part(results: Results, part: str, ids: pa.Array, min_score: float) -> Iterator[VideoLabels]:
    rows = {row["video_id"]: row for table in results.row_groups("videos", part, ids) for row in table.to_pylist()}
    of_tracks, of_masks = (
        _by_video(results.row_groups(table, part, ids, columns))
        for table, columns in (
            ("tracks", ("video_id", "track_id", "category", "score")),
            ("masks", ("video_id", "track_id", "frame", "time_s", "x", "y", "width", "height", "area", "rle")),
        )
    )
    tracks = dict(of_tracks)
    for video_id, rows_of_video in of_masks:
        kept = {row["track_id"]: row for row in tracks[video_id].to_pylist() if row["score"] >= min_score}
        shown = pc.is_in(rows_of_video["track_id"], pa.array(kept, pa.int32()))
        masks = rows_of_video.filter(shown).sort_by("frame").to_pylist()
        frames = list(dict.fromkeys(mask["frame"] for mask in masks))
        yield VideoLabels(row=rows.pop(video_id), tracks=kept, masks=masks, frames=frames)
    for row in rows.values():
        yield VideoLabels(row=row, tracks={}, masks=[], frames=[])


def _by_video(tables: Iterable[pa.Table]) -> Iterator[tuple[str, pa.Table]]:
    """Yields the rows of each video; the rows of a video must be consecutive."""
    held: list[pa.Table] = []
    for table in tables:
        if not table.num_rows:
            continue  # no row of this row group counts
        ids = np.asarray(table["video_id"].to_pylist(), dtype=object)
        starts = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist(), len(ids)]
        for start, stop in pairwise(starts):
            if held and held[0]["video_id"][0].as_py() != ids[start]:
                yield _joined(held)
                held = []
            held.append(table.slice(start, stop - start))
    if held:
        yield _joined(held)


def _joined(tables: list[pa.Table]) -> tuple[str, pa.Table]:
    return tables[0]["video_id"][0].as_py(), pa.concat_tables(tables)
