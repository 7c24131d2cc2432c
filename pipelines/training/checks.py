"""Checks a training set before training, and reports all problems at once."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate, chain, compress

import numpy as np
from jaxtyping import Int64

from pipelines.datasets import burst_files, coco, mask_table, run_lengths, ytvis
from pipelines.datasets.annotations import AnnotatedTrack, AnnotatedVideo, Category, Federation, GroundTruth, Mask
from pipelines.datasets.benchmark_videos import category_ids, find_benchmark_videos
from pipelines.datasets.burst import BurstGroundTruth
from pipelines.training.data import TrackTable, TrainingData, TrainingDataConfig, TrainingVideo
from pipelines.training.labels import labelled_video, read_labels
from pipelines.training.still_images import image_size
from pipelines.video.index import plan_video
from pipelines.video.options import Sampling
from pipelines.video.plan import VideoError, VideoPlan

_LOG = logging.getLogger(__name__)
_NAMED = 10  # problems listed in an error
_THREADS = 16  # they mostly wait for disks
_BATCH = 1 << 13  # masks parsed at a time


def open_training_data(config: TrainingDataConfig) -> TrainingData:
    """Reads annotations and checks files, sizes, lengths, masks and categories against each other.

    Decodes only the first frame of each encoded video. Keeps videos without tracks, as examples without objects.

    Raises:
        ValueError: something is wrong; lists the first ten problems by file and id.
    """
    problems: list[str] = []
    truth = _read(config, problems)
    ids = _vocabulary(truth, config, problems)
    truth, empty = _without_empty(truth) if config.format == "coco" else (truth, 0)
    problems += _track_problems(truth, config)
    folder = config.videos if config.videos is not None else os.path.dirname(config.annotations)
    with ThreadPoolExecutor(_THREADS) as pool:
        checked = list(pool.map(lambda video: _check(video, folder, config), truth.videos))
    problems += chain.from_iterable(wrong for _, wrong in checked)
    targets = [track for track in truth.tracks if not track.crowd]
    if not targets and not problems:
        problems.append(f"{config.annotations}: no annotation of an object; give a file with some")
    if problems:
        listed = "".join(f"\n  {problem}" for problem in problems[:_NAMED])
        more = f", the first {_NAMED}" if len(problems) > _NAMED else ""
        raise ValueError(f"annotations: {len(problems)} problem{'s'[: len(problems) > 1]}{more}:{listed}")
    rows = {category: row for row, category in enumerate(ids.values())}
    videos = tuple(_in_rows(video, rows) for video, _ in checked if video is not None)
    return TrainingData(
        config=config,
        sha256=truth.sha256,
        names=tuple(ids),
        videos=videos,
        tracks=_table(targets, [video.id for video in videos], rows),
        crowds=len(truth.tracks) - len(targets),
        empty=empty,
    )


def _read(config: TrainingDataConfig, problems: list[str]) -> GroundTruth:
    match config.format:
        case "ytvis":
            return ytvis.read_ground_truth(config.annotations, strict=True, problems=problems)
        case "coco":
            return coco.read_ground_truth(config.annotations, problems=problems)
        case "burst":
            return _from_burst(burst_files.read_ground_truth(config.annotations, strict=True, problems=problems))
        case "labels":
            return read_labels(config, problems)


def _from_burst(burst: BurstGroundTruth) -> GroundTruth:
    """Converts sequences to videos, with frames in order of time; numbers all tracks from 1."""
    videos, tracks = [], list[AnnotatedTrack]()
    for video, sequence in zip(burst.videos, burst.sequences, strict=True):
        order = np.argsort(sequence.times, kind="stable")
        place = np.argsort(order)
        names = tuple(video.file_names[frame] for frame in order)
        videos.append(replace(video, file_names=names))
        objects = sequence.objects
        for number in np.unique(objects.track_id):
            rows = np.flatnonzero(objects.track_id == number)
            tracks.append(
                AnnotatedTrack(
                    id=len(tracks) + 1,
                    video_id=video.id,
                    category_id=int(objects.category_id[rows[0]]),
                    masks=mask_table.place(
                        mask_table.select(objects.masks, rows), place[objects.frame[rows]], len(names)
                    ),
                    areas=(None,) * len(names),
                )
            )
    return GroundTruth(
        path=burst.path, sha256=burst.sha256, videos=tuple(videos), categories=burst.categories, tracks=tuple(tracks)
    )


def _without_empty(truth: GroundTruth) -> tuple[GroundTruth, int]:
    """Leaves out annotations without a pixel, and counts them: COCO has a few polygons that are as thin as a line."""
    shown = _areas([mask for track in truth.tracks for mask in track.masks]) > 0
    tracks = tuple(compress(truth.tracks, shown))
    empty = len(truth.tracks) - len(tracks)
    if empty:
        _LOG.warning("%s: %d annotations have no pixel of their image; they are left out", truth.path, empty)
    return replace(truth, tracks=tracks), empty


def _in_rows(video: TrainingVideo, rows: dict[int, int]) -> TrainingVideo:
    """Replaces the categories that are known of a video by their rows of the training vocabulary."""
    if video.federation is None:
        return video
    absent, partial = (
        tuple(rows[category] for category in categories if category in rows)
        for categories in (video.federation.absent, video.federation.partial)
    )
    return replace(video, federation=Federation(absent=absent, partial=partial))


def _is_trainable(category: Category, config: TrainingDataConfig) -> bool:
    return config.categories == "all" or category.partition in (None, 0, 1)


def _vocabulary(truth: GroundTruth, config: TrainingDataConfig, problems: list[str]) -> dict[str, int]:
    """Category ids of the training vocabulary, by name."""
    try:
        return category_ids([category for category in truth.categories if _is_trainable(category, config)])
    except ValueError as error:
        problems.append(f"{truth.path}: {error}")
        return {}


def _track_problems(truth: GroundTruth, config: TrainingDataConfig) -> Iterator[str]:
    """Yields what is wrong with tracks: an unknown or novel category, or no visible frame."""
    categories = {category.id: category for category in truth.categories}
    sequences = {video.id: os.path.dirname(video.file_names[0]) for video in truth.videos if video.file_names}
    stops = list(accumulate((len(track.masks) for track in truth.tracks), initial=0))
    areas = _areas([mask for track in truth.tracks for mask in track.masks])
    for track, start, stop in zip(truth.tracks, stops, stops[1:], strict=False):
        where = f"{truth.path}: annotation {track.id}"
        if config.format == "burst":
            where = f"{truth.path}: sequence {sequences[track.video_id]}, category {track.category_id},"
        category = categories.get(track.category_id)
        if category is None:
            yield f"{where} has category {track.category_id}, which is not in the file; add it"
        elif not track.crowd and not _is_trainable(category, config):
            yield (
                f"{where} is a {category.name!r}, which is novel (partition {category.partition}); "
                "remove it, or train with categories: all"
            )
        if not track.crowd and not areas[start:stop].any():
            yield f"{where} is empty: no frame has a pixel of it; remove it"


def _check(video: AnnotatedVideo, folder: str, config: TrainingDataConfig) -> tuple[TrainingVideo | None, list[str]]:
    """Returns the video with the paths of its files, or what is wrong with it."""
    where = f"{config.annotations}: {'image' if config.format == 'coco' else 'video'} {video.id}"
    assert video.length is not None  # strict readers demand it
    if config.format != "coco" and video.length < config.frames:
        return None, [f"{where} has {video.length} frames, fewer than a clip; lower frames ({config.frames})"]
    try:
        if config.format == "labels":
            return labelled_video(video), []
        if video.video is None:
            return _check_images(video, folder, config, where)
        (source,) = find_benchmark_videos([video], folder)
        plan = plan_video(source.uri, Sampling(), 1)
    except VideoError as error:
        return None, [f"{where}, {video.uri or os.path.join(folder, video.video or '')}: {error}"]
    except ValueError as error:
        return None, [f"{where}: {error}"]
    info = plan.info
    if (info.frames, info.missing_frames, info.height, info.width) != (video.length, 0, video.height, video.width):
        cut = f" and lacks {info.missing_frames}" if info.missing_frames else ""
        return None, [
            f"{where} is annotated as {video.length} frames of {video.height} x {video.width}, "
            f"but {source.uri} has {info.frames} of {info.height} x {info.width}{cut}; give the annotated video"
        ]
    return _training_video(video, (source.uri,), plan), []


def _check_images(
    video: AnnotatedVideo, folder: str, config: TrainingDataConfig, where: str
) -> tuple[TrainingVideo | None, list[str]]:
    if config.format != "coco":
        find_benchmark_videos([video], folder)
    files = tuple(os.path.abspath(os.path.join(folder, name)) for name in video.file_names)
    problems = []
    for file in files:
        try:
            height, width = image_size(file)
            if (height, width) != (video.height, video.width):
                annotated = f"is annotated as {video.height} x {video.width}"
                problems.append(f"{where} {annotated}, but {file} is {height} x {width}; give the one annotated")
        except VideoError as error:
            problems.append(f"{where}: {error}; give the folder that has it as videos, or copy it again")
    return (_training_video(video, files, None) if not problems else None), problems


def _training_video(video: AnnotatedVideo, files: tuple[str, ...], plan: VideoPlan | None) -> TrainingVideo:
    assert video.length is not None
    return TrainingVideo(
        id=video.id,
        height=video.height,
        width=video.width,
        length=video.length,
        files=files,
        plan=plan,
        federation=video.federation,
    )


def _areas(masks: Sequence[Mask | None]) -> Int64[np.ndarray, "n"]:
    """Areas of masks in pixels, 0 for absent ones."""
    parts = [run_lengths.read(masks[start : start + _BATCH]).areas for start in range(0, len(masks), _BATCH)]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _table(tracks: Sequence[AnnotatedTrack], videos: list[int], rows: dict[int, int]) -> TrackTable:
    """Table of the tracks, sorted by video; leaves out empty masks."""
    order = {video: position for position, video in enumerate(videos)}
    tracks = sorted(tracks, key=lambda track: order[track.video_id])
    present = [
        (number, frame, mask)
        for number, track in enumerate(tracks)
        for frame, mask in enumerate(track.masks)
        if mask is not None
    ]
    present = list(compress(present, _areas([mask for _, _, mask in present]) > 0))
    owners = np.array([number for number, _, _ in present], np.int64)
    lengths = np.array([len(mask.counts) for _, _, mask in present], np.int64)
    return TrackTable(
        first_track=np.searchsorted([order[track.video_id] for track in tracks], np.arange(len(videos) + 1)),
        categories=np.array([rows[track.category_id] for track in tracks], np.int64),
        first_mask=np.searchsorted(owners, np.arange(len(tracks) + 1)),
        frames=np.array([frame for _, frame, _ in present], np.int64),
        first_character=np.append(0, lengths.cumsum()),
        text=np.frombuffer(b"".join(mask.counts for _, _, mask in present), np.uint8),
    )
