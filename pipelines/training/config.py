"""Options of a training, whatever it trains. Imports no torch."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from pipelines.processes import Processes
from pipelines.storage.outage import STALL_S

TrainingPrecision = Literal["float32", "bfloat16", "float16"]
Schedule = Literal["constant", "cosine", "steps"]

RULES = 2
"""Goes up when the same settings come to give other weights, so that no training resumes by other rules.

2: weight decay as in Mask2Former's training; before, all vectors were spared, and tables of positions were not.
"""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a schedule; the numbers are Mask2Former's (Cheng et al. 2022).

    Attributes:
        learning_rate: peak learning rate, of all parameters but the backbone's.
        backbone_factor: factor on the learning rate of the backbone.
        weight_decay: weight decay of matrices, kernels and biases; norms, embeddings, tables of positions, tokens and
            CLIP's temperature have none.
        betas: decay rates of AdamW's two moments.
        clip_norm: largest gradient norm, over all parameters; null turns clipping off.
        schedule: `constant`; `cosine` falls to 0 at the last step; `steps` is multiplied by gamma at each milestone.
        warmup_steps: steps over which the learning rate rises from near 0.
        milestones: milestones of the schedule `steps`, as fractions of all steps.
        gamma: factor on the learning rate at each milestone.

    Raises:
        ValueError: a field is out of range.
    """

    learning_rate: float = 1e-4
    backbone_factor: float = 0.1
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = 0.01
    schedule: Schedule = "steps"
    warmup_steps: int = 0
    milestones: tuple[float, ...] = (0.9, 0.95)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: expected more than 0, got {self.learning_rate}; 1e-4 is Mask2Former's")
        for name in ("backbone_factor", "weight_decay", "warmup_steps", "gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected 0 to below 1, got {self.betas}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm: expected more than 0, got {self.clip_norm}; null clips nothing")
        if self.schedule not in get_args(Schedule):
            raise ValueError(
                f"schedule: unknown value {self.schedule!r}; choose one of {', '.join(get_args(Schedule))}"
            )
        if list(self.milestones) != sorted(self.milestones) or not all(0 < share < 1 for share in self.milestones):
            raise ValueError(f"milestones: expected rising shares between 0 and 1, got {self.milestones}")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A training.

    Attributes:
        output: folder, local or in the cloud, of checkpoints, metrics and the model.
        steps: optimizer steps.
        batch_size: samples per step, of all workers together.
        accumulate: number of parts that each worker processes one after the other in a step, to save memory.
        precision: precision of activations; weights are always float32.
        workers: training processes, which split each batch: a number, or a range such as `2-4`, within which there are
            as many as the cluster has room for; when that changes, training resumes at its last checkpoint.
        gpus_per_worker: GPUs per worker; 0 trains on the CPU.
        cpus_per_worker: CPUs that Ray reserves for each worker and its decoders.
        threads: torch threads per worker; default: as many as `cpus_per_worker`.
        seed: is added to the seeds of weights and clips: with another seed, all that is drawn differs.
        checkpoint_every: steps between checkpoints.
        keep_checkpoints: number of recent checkpoints to keep.
        validate_every: steps between validations; 0 validates only at the end.
        max_failures: how often training restarts by itself after a worker has died.
        stall_s: time for which the output may be away, or workers may wait for machines, before the run ends with an
            error, seconds; training goes on while the output is away, up to the next checkpoint.
        grace_s: time for storing a checkpoint when the run is interrupted, seconds.
        optimizer: learning rate, schedule and clipping.

    Raises:
        ValueError: a field is out of range, or two contradict each other.
    """

    output: str
    steps: int
    batch_size: int
    accumulate: int = 1
    precision: TrainingPrecision = "float32"
    workers: int | str = 1
    gpus_per_worker: float = 0.0
    cpus_per_worker: float = 1.0
    threads: int | None = None
    seed: int = 0
    checkpoint_every: int = 100
    keep_checkpoints: int = 2
    validate_every: int = 0
    max_failures: int = 3
    stall_s: float = STALL_S
    grace_s: float = 20.0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "threads", "checkpoint_every", "keep_checkpoints"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        for name in ("gpus_per_worker", "seed", "validate_every", "max_failures", "grace_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        for name in ("cpus_per_worker", "stall_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")
        if self.precision not in get_args(TrainingPrecision):
            choices = ", ".join(get_args(TrainingPrecision))
            raise ValueError(f"precision: unknown value {self.precision!r}; choose one of {choices}")
        if self.precision == "float16" and not self.gpus_per_worker:
            raise ValueError("precision: float16 needs a GPU; choose bfloat16 or float32, or set gpus_per_worker")
        least, most = self.worker_processes()
        sizes = range(least, min(most, self.batch_size) + 1)
        if most > self.batch_size or all(self.batch_size % (size * self.accumulate) for size in sizes):
            raise ValueError(
                f"batch_size: expected a multiple of workers x accumulate ({self.workers} x {self.accumulate}), "
                f"got {self.batch_size}; change one of them"
            )

    def worker_processes(self) -> Processes:
        """Returns how many processes train."""
        return Processes.parse("workers", self.workers)

    def identity(self) -> dict[str, Any]:
        """Returns what weights depend on, besides the stage; a training resumes only with the same."""
        names = ("steps", "batch_size", "precision", "seed")
        optimizer = {f"optimizer.{name}": value for name, value in asdict(self.optimizer).items()}
        return {"rules": RULES} | {name: getattr(self, name) for name in names} | optimizer
