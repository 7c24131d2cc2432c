"""Settings of a training, and the interface of what it trains."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from torch import Tensor, nn

from pipelines.training.optimizer import OptimizerConfig
from pipelines.training.share import Share

TrainingPrecision = Literal["float32", "bfloat16", "float16"]


@runtime_checkable
class Objective(Protocol):
    """An `nn.Module` that maps samples to weighted losses; it is built in training mode."""

    def counts(self, samples: Sequence[Any], /) -> Tensor:
        """Counts what the losses of these samples are normalised by, [n]."""

    def forward(self, samples: Sequence[Any], normalisers: Tensor, /) -> dict[str, Tensor]:
        """Computes scalar losses, sums over the samples divided by the normalisers; training minimises their sum."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the trainable parameters by group; every batch gives each a gradient, possibly zero."""

    def save(self, folder: Path, /) -> None:
        """Writes the model as a new checkpoint folder."""


@runtime_checkable
class Stage(Protocol):
    """What is trained, and on what data. It is pickled to the workers, whose working folder may differ."""

    def build(self, checkpoint: Path | None, /) -> Objective:
        """Builds the objective on the CPU, from its initial weights or from a folder that it saved."""

    def batches(self, share: Share, /) -> Iterator[list[Any]]:
        """Yields the worker's samples, a list per step; it is closed when training ends."""

    def validate(self, objective: Any, rank: int, world_size: int, /) -> dict[str, float]:
        """Returns scores on held-out data; all workers call it at the same step, and rank 0's scores count."""

    def fingerprint(self) -> str:
        """Returns a hash of all settings and data that the result depends on."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A training.

    Attributes:
        output: folder or s3:// URI of checkpoints, metrics and the model.
        steps: optimizer steps.
        batch_size: samples per step, of all workers together.
        accumulate: number of parts that each worker processes one after the other in a step, to save memory.
        precision: precision of activations; weights are always float32.
        workers: training processes, which split each batch.
        gpus_per_worker: GPUs per worker; 0 trains on the CPU.
        cpus_per_worker: CPUs that Ray reserves for each worker and its decoders.
        threads: torch threads per worker; default: as many as `cpus_per_worker`.
        seed: seed of randomness within a step; samples have their own.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: number of recent checkpoints to keep.
        validate_every: steps between validations; 0 validates only at the end.
        max_failures: how often training restarts by itself after a worker has died.
        optimizer: learning rate, schedule and clipping.

    Raises:
        ValueError: a field is out of range, or two contradict each other.
    """

    output: str
    steps: int
    batch_size: int
    accumulate: int = 1
    precision: TrainingPrecision = "float32"
    workers: int = 1
    gpus_per_worker: float = 0.0
    cpus_per_worker: float = 1.0
    threads: int | None = None
    seed: int = 0
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    validate_every: int = 0
    max_failures: int = 3
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "workers", "threads", "checkpoint_every", "keep_checkpoints"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        for name in ("gpus_per_worker", "seed", "validate_every", "max_failures"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not 0 < self.cpus_per_worker < math.inf:
            raise ValueError(f"cpus_per_worker: expected more than 0, got {self.cpus_per_worker}")
        if self.precision not in get_args(TrainingPrecision):
            choices = ", ".join(get_args(TrainingPrecision))
            raise ValueError(f"precision: unknown value {self.precision!r}; choose one of {choices}")
        if self.precision == "float16" and not self.gpus_per_worker:
            raise ValueError("precision: float16 needs a GPU; choose bfloat16 or float32, or set gpus_per_worker")
        if self.batch_size % (self.workers * self.accumulate):
            raise ValueError(
                f"batch_size: expected a multiple of workers x accumulate ({self.workers} x {self.accumulate}), "
                f"got {self.batch_size}; change one of them"
            )

    def identity(self) -> dict[str, Any]:
        """Returns the settings that weights depend on; a training resumes only with the same ones."""
        names = ("steps", "batch_size", "precision", "seed")
        optimizer = {f"optimizer.{name}": value for name, value in asdict(self.optimizer).items()}
        return {name: getattr(self, name) for name in names} | optimizer
