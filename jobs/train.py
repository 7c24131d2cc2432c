"""Trains a model: stage 1 (proposals and InstCLIP), stage 2 (the rollout tracker), or a miniature CLIP for both.

python -m jobs.train --config jobs/configs/paper/stage_1.yaml --output runs/stage_1

Run again after any interruption, it goes on at the step of its last checkpoint. The exit code is 0 if the model is
there, 1 if the run broke off, 2 for bad input, 75 if it was interrupted.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from jsonargparse import Namespace

from jobs.command import LOG_EVERY, add_files, new_parser, read_options, run_job, start
from pipelines.training.config import TrainingConfig
from pipelines.training.progress import TrainingProgress
from pipelines.training.run import TrainingSummary, train
from pipelines.training.stage import Stage
from pipelines.training.stage_config import InstanceStageConfig, PretrainingConfig, TrackingStageConfig
from pipelines.training.stages import InstanceStage, Pretraining, TrackingStage


class ProgressLine:
    """One line that is written over in a terminal, log lines elsewhere; rates count since the workers started."""

    def __init__(self) -> None:
        self.last = -LOG_EVERY
        self.shown: int | None = None
        self.began: tuple[float, TrainingProgress] | None = None

    def __call__(self, progress: TrainingProgress) -> None:
        """Shows how far training has come."""
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if self.began is None or progress.restarts != self.began[1].restarts:
            self.began = now, progress
        ended = progress.step == progress.steps
        if progress.step == self.shown or (not terminal and not ended and now - self.last < LOG_EVERY):
            return
        self.last, self.shown = now, progress.step
        line = ", ".join(self._parts(progress, now))
        print(f"\r\x1b[K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)

    def _parts(self, progress: TrainingProgress, now: float) -> list[str]:
        assert self.began is not None  # noqa: S101
        start, first = self.began
        parts = [f"step {progress.step}/{progress.steps}"]
        if progress.loss is not None:
            parts.append(f"loss {progress.loss:.4g}")
        parts += [_score(name, value) for name, value in progress.scores.items()]
        steps, elapsed = progress.step - first.step, now - start
        if steps:
            parts.append(f"{steps / elapsed:.2g} steps/s")
        if progress.seconds:
            parts.append(f"data wait {100 * progress.data_seconds / progress.seconds:.0f} %")
        if progress.restarts:
            parts.append(f"{progress.restarts} restart{'s' * (progress.restarts > 1)}")
        if steps and progress.step < progress.steps:
            parts.append(f"{_duration(elapsed / steps * (progress.steps - progress.step))} left")
        return parts


def _score(name: str, value: float) -> str:
    """Fractions as percentages, as papers have them."""
    return f"{name} {100 * value:.1f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("train", lambda: _train(arguments), interrupted="checkpoints stay, run it again to go on")


def _train(arguments: list[str] | None) -> int:
    parser = new_parser("train", __doc__)
    add_files(parser)
    parser.add_class_arguments(TrainingConfig)
    parser.add_argument("--pretraining", type=PretrainingConfig | None, help="trains a miniature CLIP")
    parser.add_argument("--stage_1", type=InstanceStageConfig | None, help="trains proposals and InstCLIP")
    parser.add_argument("--stage_2", type=TrackingStageConfig | None, help="trains the rollout tracker")
    options = read_options(parser, arguments)
    config = TrainingConfig(**{field.name: options[field.name] for field in fields(TrainingConfig)})
    summary = train(config, _stage(options), ProgressLine())
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print_summary(summary)
    return 0


def print_summary(summary: TrainingSummary) -> None:
    """Prints what was done."""
    done = summary.steps - summary.first_step
    if done:
        went_on = f", the last {done} of them now" if summary.first_step else ""
        print(f"{summary.steps} steps{went_on}, in {summary.seconds:.0f} s → {summary.model}")
    else:
        print(f"{summary.steps} steps were done already → {summary.model}")
    print(", ".join([f"loss {summary.loss:.4g}", *(_score(name, value) for name, value in summary.scores.items())]))


_STAGES: dict[str, Callable[[Any], Stage]] = {
    "pretraining": Pretraining,
    "stage_1": InstanceStage,
    "stage_2": TrackingStage,
}


def _stage(options: Namespace) -> Stage:
    """What is trained, of the options."""
    given = {name: options[name] for name in _STAGES if options[name] is not None}
    if len(given) != 1:
        raise ValueError(f"expected one of {', '.join(_STAGES)}, got {', '.join(given) or 'none'}")
    ((name, config),) = given.items()
    return _STAGES[name](config)


if __name__ == "__main__":
    start(main)
