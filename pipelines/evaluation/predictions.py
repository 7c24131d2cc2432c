"""Turns an archive into predictions for a benchmark: the k best pairs of track and category of each video."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.archive.tables import Results
from pipelines.datasets.annotations import Mask, PredictedTrack
from pipelines.datasets.benchmark_videos import BenchmarkVideo


def read_predictions(
    results: Results, videos: Sequence[BenchmarkVideo], ids: Mapping[str, int], *, top_k: int
) -> Iterator[PredictedTrack]:
    """Yields the `top_k` best pairs of track and category of every video, best first, as MinVIS and OV2Seg do.

    A track may occur under several names. For exact results the archive needs `top_k` categories per track
    (`LabelConfig.top`).

    Args:
        results: the archive, in which videos are looked up by id, or else by URI.
        videos: the videos of the ground truth.
        ids: ids of its categories, by name.
        top_k: predictions per video.

    Raises:
        ValueError: a video was not labelled, or failed, or its file has another number of frames; a category is
            missing in the ground truth; tracks have fewer categories than could be among the best `top_k`.
    """
    labelled = _labelled(results, videos)
    for video in videos:
        name = labelled[video.id]
        pairs = _best_pairs(results, name, top_k, len(ids))
        masks = _masks(results, name, video, {track for _, track, _ in pairs})
        for score, track, category in pairs:
            if category not in ids:
                raise ValueError(f"labels: {category!r} of video {name} is not a category of the ground truth")
            yield PredictedTrack(video_id=video.id, category_id=ids[category], score=score, masks=masks[track])


def _labelled(results: Results, videos: Sequence[BenchmarkVideo]) -> dict[int, str]:
    """Returns the archive's video ids by those of the ground truth."""
    rows = results.read("videos").select(["video_id", "uri", "status", "error", "frames"]).to_pylist()
    by_id, by_uri = {row["video_id"]: row for row in rows}, {row["uri"]: row for row in rows}
    names: dict[int, str] = {}
    for video in videos:
        row = by_id.get(str(video.id)) or by_uri.get(video.uri) or by_uri.get(Path(video.uri).as_uri())
        if row is None:
            raise ValueError(f"labels: {results.storage.root} lacks video {video.id}, {video.uri}; label it first")
        if row["status"] != "ok" or row["error"]:
            raise ValueError(f"labels: video {video.id}, {video.uri}, is not labelled whole: {row['error']}")
        if video.encoded and row["frames"] != video.length:
            raise ValueError(
                f"labels: video {video.id}, {video.uri}, has {row['frames']} frames, but {video.length} in the ground "
                "truth; give the file that was annotated"
            )
        names[video.id] = row["video_id"]
    return names


def _best_pairs(results: Results, video_id: str, top_k: int, categories: int) -> list[tuple[float, int, str]]:
    tracks = results.read("tracks", video_id=video_id).sort_by("track_id").select(["track_id", "top"]).to_pylist()
    short = [track["track_id"] for track in tracks if len(track["top"]) < min(top_k, categories)]
    if short:
        raise ValueError(
            f"labels: track {short[0]} of video {video_id} has fewer than {top_k} categories; label with --top {top_k}"
        )
    pairs = ((best["score"], row["track_id"], best["category"]) for row in tracks for best in row["top"])
    return heapq.nlargest(top_k, pairs, key=lambda pair: pair[0])


def _masks(
    results: Results, video_id: str, video: BenchmarkVideo, tracks: set[int]
) -> dict[int, tuple[Mask | None, ...]]:
    masks: dict[int, list[Mask | None]] = {track: [None] * video.length for track in tracks}
    rows: list[dict[str, Any]] = (
        results.read("masks", video_id=video_id).select(["track_id", "frame", "rle"]).to_pylist()
    )
    for row in rows:
        position = video.positions.get(row["frame"])
        if position is not None and row["track_id"] in tracks:
            height, width = row["rle"]["size"]
            masks[row["track_id"]][position] = Mask(height, width, row["rle"]["counts"].encode())
    return {track: tuple(frames) for track, frames in masks.items()}
