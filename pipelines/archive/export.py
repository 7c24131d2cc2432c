"""Labelled tables as annotations of other tools: YouTube-VIS and COCO with masks, CVAT with boxes for review."""

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.archive.config import ExportConfig
from pipelines.archive.formats.coco import write_coco
from pipelines.archive.formats.cvat import write_cvat
from pipelines.archive.formats.video_labels import VideoLabels, json_lists
from pipelines.archive.formats.youtube_vis import write_youtube_vis
from pipelines.archive.tables import Results, open_labels
from pipelines.storage.files import Storage

FILE = "annotations.json"
"""What YouTube-VIS and COCO annotations are called in the output."""


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What an export wrote: videos in which something was found, and their tracks."""

    videos: int
    tracks: int


def export_annotations(
    config: ExportConfig, report: Callable[[int, int], None] = lambda done, total: None
) -> ExportSummary:
    """Writes what a labelling run found as annotations; in memory is a video at a time.

    Args:
        config: the export.
        report: called with the number of videos that were looked at, and of all.

    Raises:
        ValueError: for labels that are not there, have no tracks of that score, or are damaged.
        OSError: the output cannot be written to.
    """
    results, output = open_labels(config.labels), Storage(config.output)
    found = results.scan("tracks", ("category", "score"), each=lambda rows: _categories(rows, config.min_score))
    categories = {name: number for number, name in enumerate(sorted(set().union(*found)), start=1)}
    if not categories:
        raise ValueError(f"labels: {config.labels} has no tracks with a score of {config.min_score} or more")
    output.check_writable()
    total = sum(map(len, results.counting().values()))
    looked_at = videos = tracks = 0

    def counted() -> Iterator[VideoLabels]:
        nonlocal looked_at, videos, tracks
        for video in _videos(results, config.min_score):
            looked_at += 1
            if video.tracks:
                videos, tracks = videos + 1, tracks + len(video.tracks)
                yield video
            report(looked_at, total)

    if config.format == "cvat":
        _remove_earlier(results, output, write_cvat(counted(), categories, output))
    else:
        write = write_youtube_vis if config.format == "youtube_vis" else write_coco
        with json_lists(output, FILE) as add:
            write(counted(), categories, add)
            for name, number in categories.items():
                add("categories", {"id": number, "name": name})
    return ExportSummary(videos=videos, tracks=tracks)


def _remove_earlier(results: Results, output: Storage, written: Set[str]) -> None:
    """Removes what an earlier export has written of videos of which there is nothing now."""
    ours = {f"{video_id}.xml" for ids in results.counting().values() for video_id in ids.to_pylist()}
    for name in list(output.list(".")):
        if name in ours and name not in written:
            output.remove(name)


def _categories(tracks: pa.Table, min_score: float) -> set[str]:
    return set(tracks.filter(pc.field("score") >= min_score)["category"].unique().to_pylist())


def _videos(results: Results, min_score: float) -> Iterator[VideoLabels]:
    """Yields each video once; where parts are merged meanwhile, goes on with those that have the rest."""
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
            for other, its in results.counting(rest).items():
                todo[other] = pa.concat_arrays([its, todo[other]]) if other in todo else its


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
    for video_id, its in of_masks:
        kept = {row["track_id"]: row for row in tracks[video_id].to_pylist() if row["score"] >= min_score}
        masks = its.filter(pc.is_in(its["track_id"], pa.array(kept, pa.int32()))).sort_by("frame").to_pylist()
        frames = list(dict.fromkeys(mask["frame"] for mask in masks))
        yield VideoLabels(row=rows.pop(video_id), tracks=kept, masks=masks, frames=frames)
    for row in rows.values():
        yield VideoLabels(row=row, tracks={}, masks=[], frames=[])


def _by_video(tables: Iterable[pa.Table]) -> Iterator[tuple[str, pa.Table]]:
    """Yields the rows of each video; those of one stand together."""
    held: list[pa.Table] = []
    for table in tables:
        if not table.num_rows:
            continue  # a row group of which nothing counts
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
