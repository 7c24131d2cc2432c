"""What a training needs to know, and what it trains."""

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
    """An `nn.Module`: samples in, weighted losses out. It is built in the modes that it trains in."""

    def counts(self, samples: Sequence[Any], /) -> Tensor:
        """What losses are normalised by, of these samples, [n]."""

    def forward(self, samples: Sequence[Any], normalisers: Tensor, /) -> dict[str, Tensor]:
        """Scalar losses, as sums over the samples divided by the normalisers; their sum is minimised."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters; each gets a gradient from every batch, be it zeros."""

    def save(self, folder: Path, /) -> None:
        """Writes the model as a checkpoint folder, which does not exist yet."""


@runtime_checkable
class Stage(Protocol):
    """What is trained, on what. It is pickled to the workers, whose working folder may be another."""

    def build(self, checkpoint: Path | None, /) -> Objective:
        """The objective, on the CPU, from its start or from a folder that it saved."""

    def batches(self, share: Share, /) -> Iterator[list[Any]]:
        """The worker's samples, a list per step; closed when training ends."""

    def validate(self, objective: Any, rank: int, world_size: int, /) -> dict[str, float]:
        """Scores on held-out data; all workers call it at the same step, the numbers of rank 0 count."""

    def fingerprint(self) -> str:
        """Of everything about the stage that results depend on."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A training.

    Attributes:
        output: folder or s3:// URI of checkpoints, metrics and the model.
        steps: of the optimizer.
        batch_size: samples of a step, of all workers together.
        accumulate: parts that each worker cuts its share into, one after the other, to save memory.
        precision: of the networks' activations; weights are float32 in any case.
        workers: processes that share a batch.
        gpus_per_worker: 0 trains on the CPU.
        cpus_per_worker: CPUs that Ray reserves for each worker and its decoders.
        threads: of torch in each worker; as many as it has CPUs if not given.
        seed: of what is random in a step besides the samples.
        checkpoint_every: steps.
        keep_checkpoints: how many of the last ones stay.
        validate_every: steps; 0 validates at the end alone.
        max_failures: how often a training whose worker died goes on by itself.
        optimizer: learning rate, schedule, clipping.

    Raises:
        ValueError: a field is out of range, or two do not fit.
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
        """The settings that weights depend on; with others a training cannot go on."""
        names = ("steps", "batch_size", "precision", "seed")
        optimizer = {f"optimizer.{name}": value for name, value in asdict(self.optimizer).items()}
        return {name: getattr(self, name) for name in names} | optimizer
