"""A training by one worker in this process, with Ray's part played by a few lines."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import ray.train

from pipelines.training.config import TrainingConfig
from pipelines.training.output import TrainingOutput
from pipelines.training.progress import Monitor
from pipelines.training.stage import Stage
from pipelines.training.worker import Job, work


class Handle:
    """Calls an object as one calls an actor."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.actor, name))


@contextmanager
def no_ray() -> Iterator[None]:
    """Lets this process be the only worker."""
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray.train, "get_context", lambda: context)
        patch.setattr(ray, "get", lambda value: value)
        patch.setattr(ray, "wait", lambda values, timeout: (values, []))
        yield


def train_alone(config: TrainingConfig, stage: Stage) -> None:
    """Does what `train` does, without a cluster."""
    output = TrainingOutput.open(config.output)
    output.begin({**config.identity(), "stage": stage.fingerprint()})
    with no_ray():
        work(Job(config=config, stage=stage, output=output, monitor=Handle(Monitor())))
    output.finish(config.steps)


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def curve(output: Path) -> list[dict[str, float]]:
    """All but times."""
    return [{name: value for name, value in line.items() if "seconds" not in name} for line in lines(output)]
