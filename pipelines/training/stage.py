"""What a training stage is, to the workers that run it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from pipelines.training.sample_batches import Share


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
