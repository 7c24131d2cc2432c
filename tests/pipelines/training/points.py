"""A tiny stage for tests of training: a network of two layers on numbers that follow from a sample's number."""

import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipelines.training.config import OptimizerConfig, TrainingConfig
from pipelines.training.share import Share

Sample = tuple[np.ndarray, np.ndarray]


def sample(number: int) -> Sample:
    """Between none and three points and what is wanted there: samples differ in size, so that a mean of means is no
    mean."""
    rng = np.random.default_rng(number)
    points = rng.normal(size=(number * 7 % 4, 3)).astype(np.float32)
    return points, np.sin(points.sum(1))


class Points(nn.Module):
    """Two losses with normalisers of their own; one trained parameter is not saved, as with training's own heads."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.0), nn.Linear(8, 1))
        self.head = nn.Parameter(torch.full((2, 8), 0.1))
        self.register_buffer("fixed", torch.ones(1), persistent=False)

    def counts(self, samples: Sequence[Sample]) -> Tensor:
        return torch.tensor([sum(len(points) for points, _ in samples), len(samples)])

    def forward(self, samples: Sequence[Sample], normalisers: Tensor) -> dict[str, Tensor]:
        points = torch.from_numpy(np.concatenate([points for points, _ in samples]))
        wanted = torch.from_numpy(np.concatenate([wanted for _, wanted in samples]))
        hidden = self.network[1](self.network[0](points))
        found = self.network[3](self.network[2](hidden))[:, 0]
        heads = F.softplus(hidden @ self.head.T).sum()
        return {"fit": (found - wanted).square().sum() / normalisers[0], "head": 0.01 * heads / normalisers[1]}

    def advance(self, progress: float) -> None:
        pass

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"backbone": list(self.network[0].parameters()), "other": [*self.network[3].parameters(), self.head]}

    def save(self, folder: Path) -> None:
        folder.mkdir()
        torch.save(self.network.state_dict(), folder / "network.pt")


@dataclass
class PointsStage:
    """Things may happen to it.

    Attributes:
        name: goes into the fingerprint.
        marker: file that is written when something happened, so that it happens once.
        kill: (rank, step) at which a worker kills itself.
        hold: step at which batches wait until the marker is there.
        broken: step whose samples are NaN.
        bad: (rank, step) at which a worker's data cannot be read.
        bad_without: folder that has to be gone before that.
        pause_s: time that each batch takes, seconds.
    """

    name: str = "points"
    marker: Path | None = None
    kill: tuple[int, int] | None = None
    hold: int | None = None
    broken: int | None = None
    bad: tuple[int, int] | None = None
    bad_without: Path | None = None
    pause_s: float = 0.0
    built: list[str] = field(default_factory=list)

    def build(self, checkpoint: Path | None) -> Points:
        objective = Points()
        if checkpoint:
            objective.network.load_state_dict(torch.load(checkpoint / "network.pt", weights_only=True))
        return objective

    def batches(self, share: Share) -> Iterator[list[Sample]]:
        for step in range(share.first_step, share.last_step):
            if self.kill == (share.rank, step) and self.marker and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            while self.hold == step and self.marker and not self.marker.exists():
                time.sleep(0.05)
            if self.bad == (share.rank, step):
                while self.bad_without and self.bad_without.exists():
                    time.sleep(0.05)
                raise ValueError("a.json: video 3, b.mp4: cannot be read")
            time.sleep(self.pause_s)
            samples = [sample(number) for number in share.numbers(step)]
            yield [(points * math.nan, wanted) for points, wanted in samples] if step == self.broken else samples

    validates = True

    def validate(self, objective: Any, rank: int, world_size: int) -> dict[str, float]:
        assert not torch.is_grad_enabled()
        if rank:
            return {}
        points, wanted = (np.concatenate(each) for each in zip(*map(sample, range(1000, 1008)), strict=True))
        found = objective.network(torch.from_numpy(points))[:, 0]
        return {"error": float((found - torch.from_numpy(wanted)).abs().mean())}

    def fingerprint(self) -> str:
        return self.name


OPTIMIZER = OptimizerConfig(learning_rate=0.05, clip_norm=1.0, schedule="cosine", warmup_steps=2)


def settings(output: Path, **options: Any) -> TrainingConfig:
    defaults: dict[str, Any] = {
        "steps": 8,
        "batch_size": 8,
        "threads": 1,
        "checkpoint_every": 3,
        "optimizer": OPTIMIZER,
    }
    return TrainingConfig(output=str(output), **(defaults | options))
