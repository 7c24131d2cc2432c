"""Options of a labelling job."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Literal

from openvis_model.options import VideoTrackerConfig
from pipelines.archive.config import PART_MB
from pipelines.video.isolation import Limits
from pipelines.video.plan import Sampling

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """A labelling job.

    Attributes:
        input: folder, glob, video file, manifest (.csv, .parquet, .jsonl), or folder of frame images; local or s3://.
        output: folder of the tables, local or s3://.
        vocabulary: text file of what to look for, one category per line, synonyms separated by commas; local or s3://.
        checkpoint: checkpoint folder, local or s3://; the built-in model if none is given.
        fps: frames looked at per second of video; all of them if not given.
        stride: look at every n-th frame; cannot be combined with fps.
        tracker: when tracks begin and end.
        objectness_floor: proposals below are not embedded; at most the tracker's threshold.
        top: categories listed for a track, the best one included.
        batch_size: frames that go through the model together.
        segment_frames: frames after which a long video may be cut, so that its parts are decoded in parallel; null
            cuts none.
        precision: `bfloat16` runs the model under autocast.
        compile: whether the networks are compiled by torch first.
        download_cache_gb: of videos on S3 that each node keeps on its disk, 10⁹ bytes; those in use may be more.
        model_actors: processes that run the model.
        model_gpus: GPUs of each; 0 runs on the CPU.
        trackers: processes that track and write.
        part_mb: size at which finished videos are put in place together, 10⁶ bytes on the disk; more is fewer files.
        part_s: time for which a finished video waits for others at most, seconds; it is lost with its tracker.
        max_attempts: times that a video is tried which takes its process down with it; then it has failed.
        decoder_silence_s: time that a video's index, or its next frames, may take to decode, seconds; more, and it has
            failed.
        decoder_total_s: time for which its index, or a segment of it, may be waited for in all, seconds; more, and it
            has failed.
        decoder_memory_gb: that its decoder may take, 10⁹ bytes; more, and it has failed.
        stall_s: without any progress for so long, seconds, the run ends with an error.
        grace_s: after an interruption, the time in which videos that are begun are finished, seconds.
        max_failed: share of the videos that may have failed, now or in earlier runs, for an exit code of 0; 0 to 1.
        retry_failed: whether videos that failed before are tried again.
        overwrite: whether videos that were labelled by another model, or with another vocabulary or other settings, are
            labelled again; each keeps its old tracks until it has new ones. An output with such videos is refused
            otherwise.
    """

    input: str
    output: str
    vocabulary: str
    checkpoint: str | None = None
    fps: float | None = None
    stride: int = 1
    tracker: VideoTrackerConfig = field(default_factory=VideoTrackerConfig)
    objectness_floor: float = 0.5
    top: int = 5
    batch_size: int = 8
    segment_frames: int | None = 256
    precision: Precision = "float32"
    compile: bool = False
    download_cache_gb: float = 20.0
    model_actors: int = 1
    model_gpus: float = 0.0
    trackers: int = 1
    part_mb: float = PART_MB
    part_s: float = 60.0
    max_attempts: int = 3
    decoder_silence_s: float = 120.0
    decoder_total_s: float = 3600.0
    decoder_memory_gb: float = 4.0
    stall_s: float = 1800.0
    grace_s: float = 20.0
    max_failed: float = 0.0
    retry_failed: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in ("top", "batch_size", "segment_frames", "model_actors", "trackers", "max_attempts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        for name in ("model_gpus", "download_cache_gb", "grace_s", "part_mb", "part_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        for name in ("decoder_silence_s", "decoder_total_s", "stall_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")
        if not 0 <= self.max_failed <= 1:
            raise ValueError(f"max_failed: expected a share from 0 to 1, got {self.max_failed}")
        if not 0.5 <= self.decoder_memory_gb < math.inf:  # the libraries alone take a fifth of it
            raise ValueError(f"decoder_memory_gb: expected 0.5 or more, got {self.decoder_memory_gb}")
        if not 0 <= self.objectness_floor <= self.tracker.objectness_threshold:
            raise ValueError(
                f"objectness_floor: expected 0 to the tracker's objectness_threshold "
                f"({self.tracker.objectness_threshold}), got {self.objectness_floor}; lower it or raise the threshold"
            )
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision: unknown value {self.precision!r}; choose float32 or bfloat16")
        self.sampling()  # checks fps and stride

    def sampling(self) -> Sampling:
        """Which frames are looked at."""
        return Sampling(fps=self.fps, stride=self.stride)

    def limits(self) -> Limits:
        """What the decoder of a video may take."""
        return Limits(
            silence_s=self.decoder_silence_s,
            total_s=self.decoder_total_s,
            memory_bytes=int(self.decoder_memory_gb * 1e9),
        )

    def fingerprint(self) -> str:
        """Of the settings that the tables depend on but for `top`; batches, segments and actors are not among them."""
        settings = [
            self.fps and float(self.fps),
            self.stride,
            asdict(self.tracker),
            self.objectness_floor,
            self.precision,
        ]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()
