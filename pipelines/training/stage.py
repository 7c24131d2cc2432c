"""What a training stage is, to the workers that run it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from pipelines.training.share import Share


@runtime_checkable
class Objective(Protocol):
    """An `nn.Module` that maps samples to weighted losses; it is built in training mode."""

    def counts(self, samples: Sequence[Any], /) -> Tensor:
        """Counts what the losses of these samples are normalised by, [n]."""

    def forward(self, samples: Sequence[Any], normalisers: Tensor, /) -> dict[str, Tensor]:
        """Computes scalar losses, sums over the samples divided by the normalisers; training minimises their sum."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns the trainable parameters by group; every batch gives each a gradient, possibly zero."""

    def advance(self, progress: float, /) -> None:
        """Says before a step how much of the training is done, 0 to 1."""

    def save(self, folder: Path, /) -> None:
        """Writes the model as a new checkpoint folder."""


@runtime_checkable
class Stage(Protocol):
    """What is trained, and on what data. It is pickled to the workers, whose working folder may differ."""

    @property
    def validates(self) -> bool:
        """Whether there are held-out data."""

    def build(self, checkpoint: Path | None, /) -> Objective:
        """Builds the objective on the CPU, from its initial weights or from a folder that it saved."""

    def batches(self, share: Share, /) -> Iterator[list[Any]]:
        """Yields the worker's samples, a list per step; it is closed when training ends."""

    def validate(self, objective: Any, rank: int, world_size: int, /) -> dict[str, float]:
        """Returns scores on held-out data; all workers call it at the same step, and rank 0's scores count."""

    def fingerprint(self) -> str:
        """Returns a hash of all settings and data that the result depends on."""
