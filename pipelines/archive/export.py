"""Exports labels as annotations for other tools."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipelines.archive.additions import Additions
from pipelines.archive.config import ExportConfig
from pipelines.archive.formats.format import Target
from pipelines.archive.formats.registry import FORMATS
from pipelines.archive.formats.video_labels import Row, VideoLabels
from pipelines.archive.reviewed import Verdict, review_video
from pipelines.archive.reviews import Reviews
from pipelines.archive.tables import Results, open_labels
from pipelines.storage.files import Storage
from pipelines.video.download_cache import DownloadCache
from pipelines.video.frames import pick_frames
from pipelines.video.names import local_path
from pipelines.video.plan import MachineError, VideoError


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """The result of an export.

    Attributes:
        videos: number of videos with tracks.
        tracks: number of their tracks.
        losses: what the format cannot hold, with the tracks that it concerns.
        failures: why a video was left out, by its URI: its frames cannot be read.
    """

    videos: int
    tracks: int
    losses: tuple[str, ...] = ()
    failures: dict[str, str] = field(default_factory=dict)


def export_annotations(
    config: ExportConfig, report: Callable[[int, int], None] = lambda done, total: None
) -> ExportSummary:
    """Writes labels as annotations, one video in memory at a time.

    Args:
        config: the export.
        report: called with the number of videos read and the number of all videos.

    Raises:
        ValueError: the labels are missing or damaged, or have no track to export; or the format needs a package that is
            not installed.
        OSError: the output cannot be written to.
    """
    results, output = open_labels(config.labels), Storage(config.output)
    decisions, additions = _decisions(results, config), Additions(results.storage)
    tracks_added = additions.tracks() if config.reviewed != "ignore" else additions.none()
    added = _by_id(tracks_added.to_pylist())
    names = sorted(_names(results, decisions, tracks_added, config))
    categories = {name: number for number, name in enumerate(names, start=1)}
    output.check_writable()
    total = sum(map(len, results.counting().values()))
    looked_at = tracks = 0
    written = set[str]()
    failures: dict[str, str] = {}
    form, target = FORMATS[config.format], Target(storage=output, categories=categories)

    def counted() -> Iterator[VideoLabels]:
        nonlocal looked_at, tracks
        for labelled in _videos(results):
            looked_at += 1
            labels = additions.added_to(labelled, added.get(labelled.row["video_id"], []))
            video = _selected(labels, decisions.get(labels.row["video_id"], []), config)
            wanted = video.tracks or (video.frames and form.federated)
            if wanted and (not config.images or _has_images(video, output, form.images, failures)):
                written.add(video.row["video_id"])
                tracks += len(video.tracks)
                yield video
            report(looked_at, total)

    form.write(counted(), target)
    if form.files_of_video:
        _remove_earlier(results, output, form.files_of_video, written)
    return ExportSummary(videos=len(written), tracks=tracks, losses=target.losses.lines(), failures=failures)


def _decisions(results: Results, config: ExportConfig) -> dict[str, list[Row]]:
    """Returns the decisions that count, by video."""
    return {} if config.reviewed == "ignore" else _by_id(Reviews(results.storage).read().to_pylist())


def _by_id(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Returns rows by video."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["video_id"], []).append(row)
    return found


def _names(results: Results, decisions: Mapping[str, Sequence[Row]], added: pa.Table, config: ExportConfig) -> set[str]:
    """Returns the categories to list.

    Raises:
        ValueError: there are none.
    """
    wanted = ("accept", "rename", "reject") if config.reviewed == "only" else ("accept", "rename")
    names = {row["category"] for rows in decisions.values() for row in rows if row["action"] in wanted}
    if config.reviewed == "only":
        if not names:
            raise ValueError(f"labels: {config.labels} has no accepted, renamed or rejected tracks; review some first")
        return names
    of_parts = results.scan("tracks", ("category", "score", "unknown"), each=lambda rows: _categories(rows, config))
    names = names.union(_categories(added, config), *of_parts)
    if not names:
        known = "" if config.max_unknown == 1 else f" and unknown of {config.max_unknown} or less"
        raise ValueError(f"labels: {config.labels} has no tracks with a score of {config.min_score} or more{known}")
    return names


def _selected(labels: VideoLabels, decisions: Sequence[Row], config: ExportConfig) -> VideoLabels:
    """Applies decisions to the labels of a video, and leaves out what is not wanted."""
    reviewed = review_video(labels, decisions)
    by_verdict: dict[Verdict, set[int]] = {"accepted": set(), "rejected": set(), "undecided": set()}
    for track, judged in reviewed.judged.items():
        by_verdict[judged.verdict].add(track)
    only, tracks = config.reviewed == "only", reviewed.labels.tracks
    certain = {track for track in by_verdict["undecided"] if not only and _is_certain(tracks[track], config)}
    kept = by_verdict["accepted"] | certain
    seen = kept | (by_verdict["rejected"] if only else set())
    masks = reviewed.labels.masks
    selected = replace(
        reviewed.labels,
        tracks={track: row for track, row in tracks.items() if track in kept},
        masks=[mask for mask in masks if mask["track_id"] in kept],
        frames=list(dict.fromkeys(mask["frame"] for mask in masks if mask["track_id"] in seen)),
    )
    if not only or not by_verdict["undecided"]:
        return selected  # of a video that was reviewed as a whole, everything is known that labels can tell
    names = {verdict: {tracks[track]["category"] for track in some} for verdict, some in by_verdict.items()}
    absent = sorted(names["rejected"] - names["accepted"] - names["undecided"])
    partial = sorted(names["accepted"] & names["undecided"])
    return replace(selected, federation={"neg_category_ids": absent, "not_exhaustive_category_ids": partial})


def _has_images(video: VideoLabels, output: Storage, folder: str, failures: dict[str, str]) -> bool:
    """Writes the images of a video's frames; returns whether it has all."""
    uri, cache = local_path(video.row["uri"]), DownloadCache()
    try:
        with cache.open(uri, cache.version(uri)) as path:
            missing = set(video.frames)
            for frame, pixels in pick_frames(path, video.frames):
                with output.write(folder + video.image(frame)) as file:
                    Image.fromarray(pixels).save(file, "JPEG", quality=95)
                missing.discard(frame)
        if not missing:
            return True
        failures[uri] = f"frame {min(missing)} cannot be decoded"
    except (VideoError, MachineError) as error:
        failures[uri] = str(error)
    return False


def _remove_earlier(results: Results, output: Storage, files_of_video: Iterable[str], written: Set[str]) -> None:
    """Removes files of an earlier export for videos that have no tracks now."""
    possible = {video_id for ids in results.counting().values() for video_id in ids.to_pylist()}
    for path, _ in list(output.sizes(".", deep=True)):
        for match in filter(None, (re.fullmatch(pattern, path) for pattern in files_of_video)):
            if match[1] in possible and match[1] not in written:
                output.remove(path)


def _categories(tracks: pa.Table, config: ExportConfig) -> set[str]:
    known = pc.coalesce(pc.field("unknown"), pc.scalar(0.0)) <= config.max_unknown
    return set(tracks.filter((pc.field("score") >= config.min_score) & known)["category"].unique().to_pylist())


def _is_certain(track: Row, config: ExportConfig) -> bool:
    return bool(track["score"] >= config.min_score and (track["unknown"] or 0.0) <= config.max_unknown)


def _videos(results: Results) -> Iterator[VideoLabels]:
    """Yields each video once; if a compaction replaces parts meanwhile, continues with the new ones."""
    todo = dict(results.counting())
    while todo:
        part = next(iter(todo))
        ids = todo.pop(part)
        done: list[str] = []
        try:
            for video in _videos_of_part(results, part, ids):
                done.append(video.row["video_id"])
                yield video
        except FileNotFoundError:
            if part in results.parts():
                raise
            rest = ids.filter(pc.invert(pc.is_in(ids, pa.array(done, pa.string()))))
            for other, video_ids in results.counting(rest).items():
                todo[other] = pa.concat_arrays([video_ids, todo[other]]) if other in todo else video_ids


def _videos_of_part(results: Results, part: str, ids: pa.Array) -> Iterator[VideoLabels]:
    rows = {row["video_id"]: row for table in results.row_groups("videos", part, ids) for row in table.to_pylist()}
    of_tracks, of_masks = (
        _by_video(results.row_groups(table, part, ids, columns))
        for table, columns in (
            ("tracks", ("video_id", "track_id", "category", "score", "unknown")),
            ("masks", ("video_id", "track_id", "frame", "time_s", "x", "y", "width", "height", "area", "rle")),
        )
    )
    tracks = dict(of_tracks)
    for video_id, rows_of_video in of_masks:
        of_video = {row["track_id"]: row for row in tracks[video_id].to_pylist()}
        masks = rows_of_video.sort_by("frame").to_pylist()
        frames = list(dict.fromkeys(mask["frame"] for mask in masks))
        yield VideoLabels(row=rows.pop(video_id), tracks=of_video, masks=masks, frames=frames)
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
