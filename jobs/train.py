"""Trains a model: stage 1 (proposals and InstCLIP), stage 2 (the rollout tracker), or a miniature CLIP for both.

python -m jobs.train --config jobs/configs/paper/stage_1.yaml --output runs/stage_1

After an interruption, run it again: it resumes at the step of its last checkpoint. The exit code is 0 if the model is
written, 1 if the run broke off, 2 for bad input, 75 if it was interrupted.
"""

import os
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from jobs.command import check_present, run_job, start
from jobs.options import read_config
from jobs.progress import ProgressLine
from pipelines.training.config import TrainingConfig
from pipelines.training.progress import TrainingProgress
from pipelines.training.stage_config import InstanceStageConfig, PretrainingConfig, TrackingStageConfig

if TYPE_CHECKING:
    from pipelines.training.run import TrainingSummary
    from pipelines.training.stage import Stage


@dataclass(frozen=True, kw_only=True)
class TrainConfig(TrainingConfig):
    """A training, and one stage to train.

    Attributes:
        pretraining: trains a miniature CLIP.
        stage_1: trains proposals and InstCLIP.
        stage_2: trains the rollout tracker.
    """

    pretraining: PretrainingConfig | None = None
    stage_1: InstanceStageConfig | None = None
    stage_2: TrackingStageConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        names = ("pretraining", "stage_1", "stage_2")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"stage_1: give one of {', '.join(names)}; got {', '.join(given) or 'none'}")

    def common(self) -> TrainingConfig:
        """Returns the options that all stages share."""
        return TrainingConfig(**{field.name: getattr(self, field.name) for field in fields(TrainingConfig)})

    def stage(self) -> "Stage":
        """Returns the stage to train."""
        from pipelines.training.stages import InstanceStage, Pretraining, TrackingStage

        if self.pretraining:
            return Pretraining(self.pretraining.seeded(self.seed))
        if self.stage_1:
            return InstanceStage(self.stage_1.seeded(self.seed))
        assert self.stage_2  # noqa: S101
        return TrackingStage(self.stage_2.seeded(self.seed))


class TrainProgress:
    """Progress line of a training; rates count from the last start of the workers."""

    def __init__(self) -> None:
        self.line = ProgressLine()
        self.began: tuple[float, TrainingProgress] | None = None

    def __call__(self, progress: TrainingProgress) -> None:
        """Shows how far training has come."""
        now = time.monotonic()
        if self.began is None or progress.restarts != self.began[1].restarts:
            self.began = now, progress
        self.line.show(", ".join(self._parts(progress, now)), finished=progress.step == progress.steps)

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
    """Returns a score as text, in percent."""
    return f"{name} {100 * value:.1f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("train", lambda: _train(arguments), interrupted="checkpoints are kept; run it again to resume")


def _train(arguments: list[str] | None) -> int:
    config = read_config("train", __doc__, TrainConfig, arguments)
    if config.pretraining:
        check_present("pretraining.start", config.pretraining.start)
    for name, stage in (("stage_1", config.stage_1), ("stage_2", config.stage_2)):
        if stage:
            check_present(f"{name}.start.checkpoint", stage.start.checkpoint)
            check_present(f"{name}.start.mask_proposal", stage.start.mask_proposal)
            if stage.start.clip and os.path.dirname(stage.start.clip):  # a tag of `open_clip` has no folder
                check_present(f"{name}.start.clip", stage.start.clip)
            for data in stage.data_sets:
                check_present(f"{name}.data.annotations", data.annotations)

    from pipelines.training.run import train

    progress = TrainProgress()
    summary = train(config.common(), config.stage(), progress)
    progress.line.end()
    print_summary(summary)
    return 0


def print_summary(summary: "TrainingSummary") -> None:
    """Prints the result of a training."""
    done = summary.steps - summary.first_step
    if done:
        resumed = f", the last {done} of them now" if summary.first_step else ""
        print(f"{summary.steps} steps{resumed}, in {summary.seconds:.0f} s → {summary.model}")
    else:
        print(f"{summary.steps} steps already done → {summary.model}")
    print(", ".join([f"loss {summary.loss:.4g}", *(_score(name, value) for name, value in summary.scores.items())]))


if __name__ == "__main__":
    start(main)
