"""Options of a benchmark."""

import math
from dataclasses import dataclass
from typing import Literal

from pipelines.labelling.config import Precision
from pipelines.video.options import Sampling

BATCH_SIZES = (1, 2, 4, 8, 16)
"""Sizes of batches that are tried unless one is given."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """A benchmark.

    Attributes:
        checkpoint: checkpoint folder, local or in the cloud; null is the built-in model.
        video: a local video like those to be labelled; null draws one of Shapes at 640 × 480.
        fps: frames to label per second of video; null labels every frame.
        stride: label every n-th frame; cannot be combined with fps.
        objectness_floor: proposals with a lower objectness are not embedded; 0 keeps all, as benchmark runs do.
        device: where the model runs; null is a GPU if there is one.
        precision: `bfloat16` runs the model under autocast.
        batch_size: frames that go through the model together; null tries 1, 2, 4, 8 and 16.
        seconds: how long each stage is measured, seconds.
        core_price: price of a CPU core, per hour.
        gpu_price: price of a GPU, per hour.
        output: JSON file for the results; null writes none.
    """

    checkpoint: str | None = None
    video: str | None = None
    fps: float | None = None
    stride: int = 1
    objectness_floor: float = 0.5
    device: Literal["cpu", "cuda"] | None = None
    precision: Precision = "float32"
    batch_size: int | None = None
    seconds: float = 2.0
    core_price: float = 0.05
    gpu_price: float = 1.0
    output: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {self.batch_size}")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds: expected more than 0, got {self.seconds}")
        for name in ("core_price", "gpu_price"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not 0 <= self.objectness_floor <= 1:
            raise ValueError(f"objectness_floor: expected a probability, got {self.objectness_floor}")
        self.sampling()  # checks fps and stride

    def label_options(self, batch_size: int) -> dict[str, str]:
        """Returns the options of `jobs.label` for what was measured, without those that have their defaults."""
        names = ("fps", "stride", "precision", "objectness_floor")
        given = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(BenchmarkConfig, name)}
        return {name: str(value) for name, value in {"batch_size": batch_size, **given}.items()}

    def sampling(self) -> Sampling:
        """Returns which frames are labelled."""
        return Sampling(fps=self.fps, stride=self.stride)
