"""What the measurements mean for a run: its rate, its limit, the options to give, and what it costs."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Advice:
    """A run on this machine.

    Attributes:
        frames_per_s: what the machine can label, if nothing but the stages takes time.
        limit: the stage that the others wait for.
        options: what to give to `jobs.label`.
        cores_per_gpu: CPU cores that keep one GPU busy; None without one.
        cost: price of labelling 1,000 hours of video.
        hours: time of this machine for 1,000 hours of video.
    """

    frames_per_s: float
    limit: str
    options: dict[str, str]
    cores_per_gpu: float | None
    cost: float
    hours: float


def advise(
    *,
    model_s: float,
    decode_s: float,
    track_s: float,
    options: Mapping[str, str],
    cores: int,
    threads: int,
    gpus: int,
    frames_per_video_s: float,
    core_price: float,
    gpu_price: float,
) -> Advice:
    """Derives the advice.

    A GPU computes beside the cores, which decode and track; without one, the cores do everything.

    Args:
        model_s: time of the model per frame, seconds.
        decode_s: time of decoding per frame on one core, seconds.
        track_s: time of tracking per frame on one core, seconds.
        options: those of `jobs.label` that were measured.
        cores: CPU cores of the machine.
        threads: cores that `model_s` takes, if there is no GPU.
        gpus: GPUs of the machine, one model actor each.
        frames_per_video_s: frames to label per second of video.
        core_price: price of a core, per hour.
        gpu_price: price of a GPU, per hour.
    """
    beside = decode_s + track_s
    if gpus:
        busy = {"the model": model_s / gpus, "decoding and tracking": beside / cores}
    else:
        busy = {"the model": model_s * threads / cores, "decoding and tracking": beside / cores}
    frame_s = max(busy.values()) if gpus else sum(busy.values())
    trackers = max(1, math.ceil(track_s / frame_s))
    actors = {"model_actors": str(gpus or max(1, cores // threads)), "trackers": str(trackers)}
    if gpus:
        actors["model_gpus"] = "1"
    hours = 1000 * frames_per_video_s * frame_s
    return Advice(
        frames_per_s=1 / frame_s,
        limit=max(busy, key=lambda name: busy[name]),
        options={**options, **actors},
        cores_per_gpu=beside / model_s if gpus else None,
        cost=hours * (cores * core_price + gpus * gpu_price),
        hours=hours,
    )
