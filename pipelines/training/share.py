"""Which samples a training worker makes in which step."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Share:
    """The samples of one worker: step s has the numbers s · B to s · B + B - 1, split evenly among the workers.

    Attributes:
        first_step: step at which training begins or resumes, from 0.
        last_step: the step after the last one.
        batch_size: samples per step, of all workers together.
        rank: of the worker, from 0.
        world_size: number of workers.

    Raises:
        ValueError: a field is out of range, or the workers cannot split a batch evenly.
    """

    first_step: int
    last_step: int
    batch_size: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.first_step <= self.last_step:
            raise ValueError(
                f"first_step, last_step: expected 0 <= first <= last, got {self.first_step} and {self.last_step}"
            )
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank: expected 0 to {self.world_size - 1} (world_size - 1), got {self.rank}")
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise ValueError(
                f"batch_size: expected a multiple of world_size ({self.world_size}), got {self.batch_size}; change one"
            )

    def numbers(self, step: int) -> range:
        """Returns the numbers of the worker's samples in a step."""
        local = self.batch_size // self.world_size
        start = step * self.batch_size + self.rank * local
        return range(start, start + local)
