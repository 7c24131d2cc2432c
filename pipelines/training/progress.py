"""Progress of a training, which its first worker reports to the driver.

Without torch: every process with a handle of an actor imports its class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """Progress of a training.

    Attributes:
        step: steps done.
        steps: steps of the whole training.
        first_step: steps done when the workers started.
        restarts: restarts of the workers in this run.
        loss: total loss of the last step.
        scores: scores of the last validation.
        seconds: time spent in steps since the workers started.
        data_seconds: part of `seconds` spent waiting for samples.
    """

    step: int
    steps: int
    first_step: int
    restarts: int = 0
    loss: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    data_seconds: float = 0.0


class Monitor:
    """Actor through which workers report to the driver; it outlives the workers."""

    def __init__(self) -> None:
        self.starts = 0
        self.nodes: set[str] = set()
        self.wanted = False
        self.served: int | None = None
        self.last: TrainingProgress | None = None
        self.reason: str | None = None

    def begin(self) -> None:
        """Counts a start of the workers."""
        self.starts += 1

    def join(self, node: str) -> None:
        """Records a machine that a worker is on, by Ray's id."""
        self.nodes.add(node)

    def machines(self) -> set[str]:
        """Returns the machines that workers are or were on."""
        return self.nodes

    def update(self, progress: TrainingProgress) -> bool:
        """Records the progress after a step; returns whether a checkpoint is wanted at once."""
        self.last = replace(progress, restarts=self.starts - 1)
        return self.wanted

    def notify(self) -> None:
        """Asks for a checkpoint at once; `stored_at` returns its step when it is stored."""
        self.wanted, self.served = True, None

    def store(self, step: int) -> None:
        """Records that the checkpoint that was asked for is stored."""
        self.wanted, self.served = False, step

    def stored_at(self) -> int | None:
        """Returns the step of the checkpoint that was asked for last; None until it is stored."""
        return self.served

    def fail(self, reason: str) -> None:
        """Records why training cannot continue, even after a restart; keeps the first reason."""
        self.reason = self.reason or reason

    def progress(self) -> TrainingProgress | None:
        """Returns the last progress; None before the first step."""
        return self.last

    def failure(self) -> str | None:
        """Returns why training cannot continue; None if it can."""
        return self.reason
