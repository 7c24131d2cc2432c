"""Options of a job that follows objects."""

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import get_args

from openvis_model.options import Shots, VideoTrackerConfig
from pipelines.labelling.config import Precision, decoder_limits
from pipelines.storage.outage import STALL_S
from pipelines.video.options import Limits, Sampling

PROMPTED = "prompts-"
"""What the config fingerprint of videos begins with whose tracks were prompted."""


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """A job that follows objects through a video.

    Attributes:
        video: video file or folder of frame images, local or in the cloud.
        output: folder of the tables, local or in the cloud; may hold other videos whose objects were followed.
        prompt: what to follow, such as `0.5s: box 10 20 200 180 = my cup` (left, top, width and height in pixels of the
            upright frame), `frame 12: point 120 80 = my cup`, or `2s: point 120 80, not 60 40`, without a name; may be
            given several times.
        prompts: file with a prompt per line, local or in the cloud; empty lines and those that begin with # are passed
            over.
        checkpoint: checkpoint folder, local or in the cloud; null is the built-in model, which knows Shapes alone.
        fps: frames per second of video that are looked at; null looks at every frame. Those of the prompts are looked
            at anyway.
        stride: look at every n-th frame; cannot be combined with fps.
        tracker: how objects are followed, and when a track ends; proposals below its objectness_threshold do not count.
        shots: whether a track ends where the video is cut (`cuts`), or goes on (`none`).
        batch_size: frames that go through the model together.
        segment_frames: frames after which a long video may be cut into segments that are decoded one after the other;
            null never cuts.
        precision: `bfloat16` runs the model under autocast.
        compile: whether torch compiles the model first.
        model_gpus: 1 runs the model on a GPU of this machine, 0 on its CPU.
        download_cache_gb: videos from the cloud that this machine keeps on its disk, 10⁹ bytes.
        decoder_silence_s: longest time to read the video's index, or to decode its next frames, seconds.
        decoder_total_s: longest time to read the video's index, or to decode a segment, in all, seconds.
        decoder_memory_gb: memory that the video's decoder may take, 10⁹ bytes.
        stall_s: time for which the output may be away before the run ends with an error, seconds.
        overwrite: whether to replace tracks of the video that the output has for other prompts or settings.
    """

    video: str
    output: str
    prompt: str | list[str] | None = None
    prompts: str | None = None
    checkpoint: str | None = None
    fps: float | None = None
    stride: int = 1
    tracker: VideoTrackerConfig = field(default_factory=VideoTrackerConfig)
    shots: Shots = "cuts"
    batch_size: int = 8
    segment_frames: int | None = 256
    precision: Precision = "float32"
    compile: bool = False
    model_gpus: int = 0
    download_cache_gb: float = 20.0
    decoder_silence_s: float = Limits.silence_s
    decoder_total_s: float = Limits.total_s
    decoder_memory_gb: float = Limits.memory_bytes / 1e9
    stall_s: float = STALL_S
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.prompt and self.prompts is None:
            raise ValueError(
                "prompt: missing; give one as --prompt '0.5s: box 10 20 200 180 = my cup', or --prompts FILE"
            )
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"precision: unknown value {self.precision!r}; choose from {', '.join(get_args(Precision))}"
            )
        for name in ("batch_size", "segment_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if not 0 < self.stall_s < math.inf:
            raise ValueError(f"stall_s: expected more than 0, got {self.stall_s}")
        if not 0 <= self.download_cache_gb < math.inf:
            raise ValueError(f"download_cache_gb: expected 0 or more, got {self.download_cache_gb}")
        if self.model_gpus not in (0, 1):
            raise ValueError(f"model_gpus: expected 0 or 1, got {self.model_gpus}; one video is followed on one GPU")
        if self.shots not in get_args(Shots):
            raise ValueError(f"shots: unknown value {self.shots!r}; choose cuts or none")
        self.limits()  # checks the options of the decoder
        self.sampling()  # checks fps and stride

    def sampling(self) -> Sampling:
        """Returns which frames are looked at, without those of the prompts."""
        return Sampling(fps=self.fps, stride=self.stride)

    def limits(self) -> Limits:
        """Returns what the decoder of the video may take."""
        return decoder_limits(self.decoder_silence_s, self.decoder_total_s, self.decoder_memory_gb)

    def fingerprint(self, prompts: list[str]) -> str:
        """Returns a hash of the prompts and the settings that tracks depend on."""
        settings = [prompts, self.fps and float(self.fps), self.stride, self.tracker.identity(), self.shots]
        return PROMPTED + hashlib.sha256(json.dumps([*settings, self.precision]).encode()).hexdigest()
