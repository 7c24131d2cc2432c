"""How far a training has come, told by its first worker to the driver.

Without torch: whoever holds a handle of an actor imports its class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """How far a training has come.

    Attributes:
        step: steps done.
        steps: of the whole training.
        first_step: steps that were done when the workers started.
        restarts: how often they had to start again.
        loss: of the last step, the sum of all.
        scores: of the last validation.
        seconds: spent in steps since the workers started.
        data_seconds: of these, waited for samples.
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
    """The actor between the workers and the driver; it outlives workers."""

    def __init__(self) -> None:
        self.starts = 0
        self.last: TrainingProgress | None = None
        self.reason: str | None = None

    def begin(self) -> None:
        """The first worker of a group starts."""
        self.starts += 1

    def update(self, progress: TrainingProgress) -> None:
        """A step is done."""
        self.last = replace(progress, restarts=self.starts - 1)

    def fail(self, reason: str) -> None:
        """Training cannot go on, whoever tries; the first reason counts."""
        self.reason = self.reason or reason

    def progress(self) -> TrainingProgress | None:
        """The last known; none before the first step."""
        return self.last

    def failure(self) -> str | None:
        """Why training cannot go on."""
        return self.reason
