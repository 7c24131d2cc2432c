"""Which samples a training worker makes in which step."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Share:
    """The samples of one worker: step s has the numbers s · B to s · B + B - 1.

    Workers split them as evenly as possible: their numbers of samples differ by one at most.

    Attributes:
        first_step: step at which training begins or resumes, from 0.
        last_step: the step after the last one.
        batch_size: samples per step, of all workers together.
        rank: of the worker, from 0.
        world_size: number of workers.

    Raises:
        ValueError: a field is out of range, or there are more workers than samples.
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
        if self.batch_size < self.world_size:
            raise ValueError(
                f"batch_size: expected at least world_size ({self.world_size}), got {self.batch_size}; change one"
            )

    def numbers(self, step: int) -> range:
        """Returns the numbers of the worker's samples in a step."""
        first, last = (self.batch_size * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return range(step * self.batch_size + first, step * self.batch_size + last)
