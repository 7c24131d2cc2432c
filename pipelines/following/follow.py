"""Follows prompted objects through a video: frames go through the model once, in order, and tracking goes both ways."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from jaxtyping import Int32

from openvis_model.following import ABSENT, best_fit, follow
from openvis_model.options import SIZE_DIVISOR, Shots, VideoTrackerConfig
from openvis_model.prompts import Prompt
from openvis_model.rollout_tracker import RolloutTracker
from openvis_model.track import CategoryScore, Track
from openvis_model.video_tracker import NO_TRACK
from pipelines.following.instance_store import InstanceStore
from pipelines.labelling.decode_operator import Decode, Plan
from pipelines.labelling.model_operator import Model
from pipelines.labelling.rows import LabelledRow, SegmentRow
from pipelines.labelling.video_writer import Tracked, mask_rows
from pipelines.video.download_cache import DownloadCache
from pipelines.video.options import Limits, Sampling
from pipelines.video.plan import ROUNDING_S, VideoError
from pipelines.video.sources import Video


@dataclass(frozen=True, kw_only=True)
class Following:
    """How objects are followed.

    Attributes:
        model: turns frames into instances; its floor is the tracker's `objectness_threshold`.
        short_side: the model's working size, pixels.
        rollout_tracker: of the model.
        sampling: which frames are looked at, besides those of the prompts.
        tracker: how instances are linked, and when a track ends.
        shots: whether a track ends where the video is cut.
        segment_frames: frames after which the video may be cut into segments.
        cache: opens videos in the cloud.
        limits: what the decoder may take.
    """

    model: Model
    short_side: int
    rollout_tracker: RolloutTracker | None
    sampling: Sampling
    tracker: VideoTrackerConfig
    shots: Shots
    segment_frames: int | None
    cache: DownloadCache
    limits: Limits


@dataclass(frozen=True, kw_only=True, eq=False)
class Followed:
    """The tracks of prompted objects.

    Attributes:
        last: the last batch of the video, with the facts of its index; without instances.
        store: the instances of all frames.
        tracks: in order of their ids: by first frame, then in the order of the prompts.
        picks: of each track, the instance of each frame, by position; `ABSENT` where it is not in sight.
        prompts: of each track.
        tracker_s: time that following took, seconds.
    """

    last: LabelledRow
    store: InstanceStore
    tracks: Sequence[Track]
    picks: Int32[np.ndarray, "k F"]
    prompts: Sequence[Prompt]
    tracker_s: float

    def masks(self, video_id: str) -> Iterator[pa.Table]:
        """Yields rows of the `masks` table, sorted by frame and track, some at a time."""
        for start, frames, times_s, found in self.store.batches():
            rows = []
            for track, picks in zip(self.tracks, self.picks, strict=True):
                tracked = []
                for at, instances in enumerate(found):
                    ids = np.full(len(instances), NO_TRACK)
                    if picks[start + at] != ABSENT:
                        ids[picks[start + at]] = track.track_id
                    tracked.append(Tracked(int(frames[at]), float(times_s[at]), instances, ids))
                rows.append(mask_rows(video_id, tracked))
            yield pa.concat_tables(rows).sort_by([("frame", "ascending"), ("track_id", "ascending")])


def follow_prompts(
    video: Video, prompts: Sequence[Prompt], following: Following, report: Callable[[int, int], None]
) -> Followed:
    """Follows the object of each prompt through the shot that it is shown in, forwards and backwards.

    The frames of the prompts go through the model first, so that a prompt that fits nothing is refused at once. Then
    all frames do, in order; their instances are kept on disk.

    Args:
        video: the video.
        prompts: at least one.
        following: model and settings.
        report: called with the number of frames looked at, and of all to look at.

    Raises:
        VideoError: the video cannot be read.
        ValueError: a prompt is outside of the frame or the video, fits no proposal, or means the same as another one,
            unless it is in another frame and has the same name: then both are one track.
    """
    seconds = tuple(prompt.seconds for prompt in prompts if prompt.seconds is not None)
    frames = tuple(prompt.frame for prompt in prompts if prompt.frame is not None)
    sampling = replace(following.sampling, also=frames, also_s=seconds)
    plan = Plan(sampling, following.segment_frames, following.cache, following.limits)
    segments = list(plan.segments(asdict(video)))
    shown = [_frame_of(prompt, segments) for prompt in prompts]
    for segment in segments:
        if np.isin(segment.kept_frame, shown).any():
            _check_fits(prompts, shown, segment, following)
    store = InstanceStore()
    expected = segments[0].expected_frames
    for segment in segments:
        for batch in _batches(segment, following):
            store.add(batch)
            last = replace(batch, instances=b"", thumbnails=b"")
            report(len(store), expected)
    start = time.perf_counter()
    picks, distinct = _merged(_picks(store, prompts, shown, following), prompts)
    order = np.argsort((picks != ABSENT).argmax(1), kind="stable")
    picks, sorted_prompts = picks[order], [distinct[number] for number in order]
    return Followed(
        last=last,
        store=store,
        tracks=_tracks(store, picks, sorted_prompts),
        picks=picks,
        prompts=sorted_prompts,
        tracker_s=time.perf_counter() - start,
    )


def _frame_of(prompt: Prompt, segments: Sequence[SegmentRow]) -> int:
    """Returns the index of a prompt's frame.

    Raises:
        VideoError: the video cannot be read.
        ValueError: the prompt is outside of the frame, or beyond the end of the video.
    """
    info = segments[0].info
    if info is None:
        raise VideoError(str(segments[0].error))
    prompt.check_within(info.width, info.height)
    beyond = info.frames <= prompt.frame if prompt.frame is not None else info.duration_s <= (prompt.seconds or 0)
    if beyond:
        raise ValueError(
            f"{prompt.place}: {prompt}: is beyond the end of the video, which has {info.frames} frames, 0 to "
            f"{info.frames - 1}, and lasts {info.duration_s:.2f} s; give an earlier time"
        )
    if prompt.seconds is None:
        assert prompt.frame is not None, "a prompt has one of the two"
        return prompt.frame
    frames, times_s = (
        np.concatenate([getattr(each, name) for each in segments]) for name in ("kept_frame", "kept_time_s")
    )
    return int(frames[times_s.searchsorted(prompt.seconds + ROUNDING_S, side="right") - 1])


def _batches(segment: SegmentRow, following: Following) -> Iterator[LabelledRow]:
    """Yields the batches of a segment with their instances.

    Raises:
        VideoError: it cannot be decoded, or the model failed.
    """
    decode = Decode(
        following.short_side,
        SIZE_DIVISOR,
        following.model.batch_size,
        following.cache,
        following.limits,
        following.shots,
    )
    for batch in decode.batches(segment):
        for labelled in LabelledRow.from_table(following.model(batch.to_table())):
            if labelled.error:
                raise VideoError(labelled.error)
            yield labelled


def _check_fits(prompts: Sequence[Prompt], shown: Sequence[int], segment: SegmentRow, following: Following) -> None:
    """Checks the prompts of a segment, of which it reads the frames that they are in."""
    wanted = np.isin(segment.kept_frame, shown)
    cut = {name: getattr(segment, name)[wanted] for name in ("kept_frame", "kept_time_s", "kept_pts")}
    store = InstanceStore()
    for batch in _batches(replace(segment, **cut), replace(following, shots="none")):
        store.add(batch)
    frames = set(cut["kept_frame"].tolist())
    mine = [number for number, frame in enumerate(shown) if frame in frames]
    _chosen(store, [prompts[number] for number in mine], [shown[number] for number in mine], following)


def _chosen(
    store: InstanceStore, prompts: Sequence[Prompt], shown: Sequence[int], following: Following
) -> list[tuple[int, int]]:
    """Returns the position of each prompt's frame, and the instance that it means."""
    chosen: list[tuple[int, int]] = []
    for prompt, frame in zip(prompts, shown, strict=True):
        position = store.position(frame)
        if position is None:
            raise ValueError(f"{prompt.place}: {prompt}: frame {frame} cannot be decoded; choose another")
        (instances,) = store.instances(range(position, position + 1))
        meant = position, best_fit(prompt, instances, following.tracker.objectness_threshold)
        if meant in chosen:
            other = prompts[chosen.index(meant)]
            raise ValueError(
                f"{prompt.place}: {prompt}: means the same proposal as {other}; remove one of the two, or show more "
                "clearly what is meant"
            )
        chosen.append(meant)
    return chosen


def _picks(
    store: InstanceStore, prompts: Sequence[Prompt], shown: Sequence[int], following: Following
) -> Int32[np.ndarray, "k F"]:
    """Returns the instances of each prompt's object, by position; those of one frame are followed together."""
    chosen = _chosen(store, prompts, shown, following)
    picks = np.full((len(prompts), len(store)), ABSENT, np.int32)
    by_position = sorted(range(len(prompts)), key=lambda number: chosen[number][0])
    for position, group in groupby(by_position, key=lambda number: chosen[number][0]):
        numbers = list(group)
        instances, shot = [chosen[number][1] for number in numbers], store.shot(position)
        for way in (range(position, shot.stop), range(position, shot.start - 1, -1)):
            found = follow(following.tracker, following.rollout_tracker, store.instances(way), instances)
            for at, picked in zip(way, found, strict=False):  # tracks may end before the shot does
                picks[numbers, at] = picked
    return picks


def _merged(
    picks: Int32[np.ndarray, "k F"], prompts: Sequence[Prompt]
) -> tuple[Int32[np.ndarray, "m F"], list[Prompt]]:
    """Returns one row for all prompts of one name that share most of the instances of the shorter row, with the first.

    Raises:
        ValueError: prompts of different names do.
    """
    rows, kept = list[Int32[np.ndarray, " F"]](), list[Prompt]()
    for row, prompt in zip(picks, prompts, strict=True):
        same = next((number for number, each in enumerate(rows) if _share_most(row, each)), None)
        if same is None:
            rows.append(row)
            kept.append(prompt)
        elif kept[same].name == prompt.name:
            rows[same] = np.where(rows[same] == ABSENT, row, rows[same])
        else:
            raise ValueError(
                f"{prompt.place}: {prompt}: means the same object as {kept[same]}; remove one of the two, or give both "
                "the same name"
            )
    return np.stack(rows), kept


def _share_most(one: Int32[np.ndarray, " F"], other: Int32[np.ndarray, " F"]) -> bool:
    shorter = min((one != ABSENT).sum(), (other != ABSENT).sum())
    return bool(2 * ((one == other) & (one != ABSENT)).sum() > shorter)


def _tracks(store: InstanceStore, picks: Int32[np.ndarray, "k F"], prompts: Sequence[Prompt]) -> list[Track]:
    """Returns the tracks, numbered from 0, with the names of their prompts."""
    objectness = np.zeros(len(picks))
    embeddings: list[torch.Tensor] = [torch.zeros(1)] * len(picks)
    colours, areas = torch.zeros(len(picks), 3), np.zeros(len(picks))
    first, last = np.full(len(picks), -1), np.full(len(picks), -1)
    for start, frames, _, found in store.batches():
        for at, instances in enumerate(found):
            for number in np.flatnonzero(picks[:, start + at] != ABSENT):
                pick = picks[number, start + at]
                weight = float(instances.objectness[pick])
                objectness[number] += weight
                embeddings[number] = embeddings[number] + weight * instances.instance_tokens[pick]
                area = int(instances.masks.areas[pick])
                colours[number] += area * instances.colours[pick]
                areas[number] += area
                first[number] = frames[at] if first[number] < 0 else first[number]
                last[number] = frames[at]
    counts = (picks != ABSENT).sum(1)
    return [
        Track(
            track_id=number,
            top=(CategoryScore(prompt.name, float(objectness[number] / counts[number]), number),),
            first_frame=int(first[number]),
            last_frame=int(last[number]),
            frames=int(counts[number]),
            objectness=float(objectness[number] / counts[number]),
            embedding=F.normalize(embeddings[number], dim=-1),
            unknown=0.0,
            colour=colours[number] / float(areas[number]),
        )
        for number, prompt in enumerate(prompts)
    ]
