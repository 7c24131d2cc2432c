"""Options of a labelling job."""

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from openvis_model.options import Shots, Synonyms, VideoTrackerConfig
from pipelines.archive.config import PART_MB
from pipelines.labelling.placement import parse_machines
from pipelines.processes import Processes
from pipelines.storage.outage import STALL_S
from pipelines.video.options import Limits, Sampling

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """A labelling job.

    Attributes:
        input: folder, glob, video file, manifest (.csv, .parquet, .jsonl), or folder of frame images; local or in the
            cloud.
        output: folder of the tables, local or in the cloud.
        vocabulary: what to look for: text file with a category per line, synonyms separated by commas or pictures of it
            (`mug: mug_1.jpg, mug_2.jpg`), or .json file with a list of names per category; local or in the cloud.
        synonyms: how a category with several names or pictures is scored: by the `mean` of their embeddings, or by the
            `best` one for each track.
        checkpoint: checkpoint folder, local or in the cloud; null is the built-in model, which knows Shapes alone.
        fps: frames to label per second of video; null labels every frame.
        stride: label every n-th frame; cannot be combined with fps.
        tracker: when tracks begin and end.
        shots: whether tracks end where a video is cut (`cuts`), or go on (`none`); `videos.shots` has the shots.
        objectness_floor: proposals with a lower objectness are not embedded; at most the tracker's threshold.
        top: categories listed for a track, the best one included.
        batch_size: frames that go through the model together.
        segment_frames: frames after which a long video may be cut, so that its segments are decoded in parallel; null
            never cuts.
        precision: `bfloat16` runs the model under autocast.
        compile: whether torch compiles the model first.
        allow_http: whether a manifest may name videos on web servers, by http:// or https://; only ones with a public
            address are asked.
        http_max_gb: largest video that is downloaded from a web server, 10⁹ bytes; a larger one has failed.
        download_cache_gb: videos from the cloud and the web that each node keeps on its disk, 10⁹ bytes; videos in use
            may take more.
        model_actors: processes that run the model: a number, or a range such as `1-8`, within which there are as many
            as have work and room.
        model_gpus: GPUs of each model actor; 0 runs it on the CPU.
        model_on: machines of a cluster that may run the model, by their labels in Ray, best first, such as
            `[ray.io/accelerator-type=H100, any]`; the next ones count while those of a kind are busy or absent.
        decode_on: machines of a cluster that may read videos, such as `[ray.io/market-type=spot]`.
        trackers: processes that track and write, on the driver's machine.
        part_mb: size at which finished videos are committed together, 10⁶ bytes on disk; a larger one makes fewer
            files.
        part_s: longest time that a finished video waits for others before it is committed, seconds; until then it is
            lost if its tracker dies.
        max_attempts: how often to try a video that kills its worker; then it has failed.
        decoder_silence_s: longest time to read a video's index, or to decode its next frames, seconds; a video that
            takes longer has failed.
        decoder_total_s: longest time to read a video's index, or to decode a segment, in all, seconds; a video that
            takes longer has failed.
        decoder_memory_gb: memory that a video's decoder may take, 10⁹ bytes; a video that needs more has failed.
        stall_s: time without any progress, or for which the output may be away, before the run ends with an error,
            seconds.
        grace_s: time for finishing videos that are begun when the run is interrupted, seconds.
        max_failed: share of the videos, 0 to 1, that may have failed, in this run or earlier ones, for an exit code
            of 0.
        retry_failed: whether to try videos again that failed in earlier runs.
        overwrite: whether to label videos again that have another model, vocabulary or settings; each keeps its old
            tracks until it has new ones. Without it, an output with such videos is refused.
    """

    input: str
    output: str
    vocabulary: str
    synonyms: Synonyms = "mean"
    checkpoint: str | None = None
    fps: float | None = None
    stride: int = 1
    tracker: VideoTrackerConfig = field(default_factory=VideoTrackerConfig)
    shots: Shots = "cuts"
    objectness_floor: float = 0.5
    top: int = 5
    batch_size: int = 8
    segment_frames: int | None = 256
    precision: Precision = "float32"
    compile: bool = False
    allow_http: bool = False
    http_max_gb: float = 10.0
    download_cache_gb: float = 20.0
    model_actors: int | str = 1
    model_gpus: float = 0.0
    model_on: list[str] | None = None
    decode_on: list[str] | None = None
    trackers: int = 1
    part_mb: float = PART_MB
    part_s: float = 60.0
    max_attempts: int = 3
    decoder_silence_s: float = Limits.silence_s
    decoder_total_s: float = Limits.total_s
    decoder_memory_gb: float = Limits.memory_bytes / 1e9
    stall_s: float = STALL_S
    grace_s: float = 20.0
    max_failed: float = 0.0
    retry_failed: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("top", "batch_size", "segment_frames", "trackers", "max_attempts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        for name in ("model_gpus", "download_cache_gb", "grace_s", "part_mb", "part_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        for name in ("http_max_gb", "stall_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")
        if not 0 <= self.max_failed <= 1:
            raise ValueError(f"max_failed: expected a share from 0 to 1, got {self.max_failed}")
        if not 0 <= self.objectness_floor <= self.tracker.objectness_threshold:
            raise ValueError(
                f"objectness_floor: expected 0 to the tracker's objectness_threshold "
                f"({self.tracker.objectness_threshold}), got {self.objectness_floor}; lower it or raise the threshold"
            )
        if self.shots not in get_args(Shots):
            raise ValueError(f"shots: unknown value {self.shots!r}; choose cuts or none")
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"precision: unknown value {self.precision!r}; choose from {', '.join(get_args(Precision))}"
            )
        self.limits()  # checks the options of the decoder
        self.sampling()  # checks fps and stride
        self.model_processes()
        for name in ("model_on", "decode_on"):
            parse_machines(name, getattr(self, name))

    def sampling(self) -> Sampling:
        """Returns which frames are labelled."""
        return Sampling(fps=self.fps, stride=self.stride)

    def model_processes(self) -> Processes:
        """Returns how many processes run the model."""
        return Processes.parse("model_actors", self.model_actors)

    def limits(self) -> Limits:
        """Returns what the decoder of a video may take."""
        return decoder_limits(self.decoder_silence_s, self.decoder_total_s, self.decoder_memory_gb)

    def fingerprint(self) -> str:
        """Returns a hash of the settings that change the tables, without `top`; batches, segments and actors do not."""
        settings = [
            self.fps and float(self.fps),
            self.stride,
            self.tracker.identity(),
            self.objectness_floor,
            self.precision,
            *([self.shots] if self.shots != "none" else []),
        ]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def decoder_limits(silence_s: float, total_s: float, memory_gb: float) -> Limits:
    """Returns the limits that the options `decoder_silence_s`, `decoder_total_s` and `decoder_memory_gb` set.

    Raises:
        ValueError: a number is out of range; names the option.
    """
    for name, value in (("decoder_silence_s", silence_s), ("decoder_total_s", total_s)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: expected more than 0, got {value}")
    if not 0.5 <= memory_gb < math.inf:  # the libraries alone take 0.1
        raise ValueError(f"decoder_memory_gb: expected 0.5 or more, got {memory_gb}")
    return Limits(silence_s=silence_s, total_s=total_s, memory_bytes=int(memory_gb * 1e9))
