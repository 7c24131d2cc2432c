"""The work of a training worker, from the last checkpoint to the last step."""

import json
import pickle
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.train.torch
import torch
import torch.distributed as dist

from pipelines.cluster.nodes import node_id
from pipelines.storage.outage import left_while_away
from pipelines.training.config import TrainingConfig
from pipelines.training.log import TrainingLog
from pipelines.training.output import METRICS, STATE, TrainingOutput, checkpoint_path, write_state
from pipelines.training.progress import TrainingProgress
from pipelines.training.share import Share
from pipelines.training.stage import Stage
from pipelines.training.step import TrainingStep
from pipelines.training.upload import CheckpointUpload

OPTIMIZER = "optimizer.pt"

VALIDATION = "validation/"
"""Prefix of scores among the metrics."""

_TRANSIENT = (RuntimeError, OSError, ray.exceptions.RayError)  # a lost worker, a lost connection to it, the storage


@dataclass(frozen=True, kw_only=True)
class Job:
    """Arguments of a worker, which are pickled to it.

    Attributes:
        config: settings of the training.
        stage: what is trained.
        output: the output.
        monitor: handle of the `Monitor` actor.
    """

    config: TrainingConfig
    stage: Stage
    output: TrainingOutput
    monitor: Any


def work_on(settings: dict[str, Any]) -> None:
    """Trains on the `Job` whose reference is called `job`; Ray Train calls this in workers, again after an error."""
    work(ray.get(settings["job"]))


def work(job: Job) -> None:
    """Trains in a worker.

    An error that would come again is reported to the monitor as well: the new workers then return at once. The failing
    worker raises it nevertheless, because its peers would wait forever for a worker that returned.
    """
    if ray.get(job.monitor.failure.remote()) is not None:
        return
    try:
        _Worker(job).run()
    except _TRANSIENT:
        raise
    except Exception as error:
        text = str(error) if isinstance(error, ValueError | ArithmeticError) else repr(error)
        ray.get(job.monitor.fail.remote(text))
        raise


class _Worker:
    """One worker, from start to end."""

    def __init__(self, job: Job) -> None:
        context = ray.train.get_context()
        self.job = job
        self.config = job.config
        self.output = job.output
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        if self.rank == 0:
            self.output.outlast(self.output.remove_incomplete)
            ray.get(job.monitor.begin.remote())
        self.upload = CheckpointUpload(self.output, self.config.keep_checkpoints)
        self.told: Any = None  # the monitor's answer to the last report
        job.monitor.join.remote(node_id())
        self.first_step = self._agree(0 if self.rank else max(self.output.outlast(self.output.intact), default=0))
        self.saved = self.first_step  # the step of the last checkpoint
        self.step, text = self._restore()
        self.log = TrainingLog(self.output, text, self.first_step) if self.rank == 0 else None
        self.progress = TrainingProgress(
            step=self.first_step, steps=self.config.steps, first_step=self.first_step, scores=_last_scores(text)
        )

    def run(self) -> None:
        """Trains to the last step, and writes its checkpoint."""
        config = self.config
        share = Share(
            first_step=self.first_step,
            last_step=config.steps,
            batch_size=config.batch_size,
            rank=self.rank,
            world_size=self.world_size,
        )
        try:
            with closing(_closable(self.job.stage.batches(share))) as batches:
                for step in range(self.first_step, config.steps):
                    self._advance(step, batches, len(share.numbers(step)))
            self.upload.finish()
            if self.log:
                self.output.outlast(self.log.publish)
        finally:
            self.upload.close()
            if self.log:
                self.log.close()

    def _advance(self, step: int, batches: Iterator[list[Any]], size: int) -> None:
        """Does one step of `size` samples, and the validation and checkpoint due after it.

        Validation may take long, or fail; so there is a checkpoint right before the step that it follows.
        """
        config, done = self.config, step + 1
        is_last = done == config.steps
        validation_due = is_last or (config.validate_every and done % config.validate_every == 0)
        if validation_due and self.job.stage.validates and self.log and step > self.saved:
            self._save(step, self.log)
        start = time.monotonic()
        samples = next(batches, None)
        if samples is None or len(samples) != size:
            count = "none" if samples is None else len(samples)
            raise ValueError(f"step {step + 1}: expected {size} samples, got {count}")
        waited = self._longest(time.monotonic() - start)
        metrics = self.step(step, samples) | {"data_seconds": waited}
        metrics["seconds"] += waited
        if validation_due:
            with torch.no_grad():
                scores = self.job.stage.validate(self.step.objective, self.rank, self.world_size)
            metrics |= {f"{VALIDATION}{name}": float(value) for name, value in scores.items()}
        if self.log:
            self.upload.check()
            self.log.add(done, metrics)
            wanted = self._report(done, metrics)
            if wanted or is_last or done % config.checkpoint_every == 0:
                self._save(done, self.log)
            if wanted:
                self.upload.finish()
                ray.get(self.job.monitor.store.remote(done))
                self.told = None

    def _restore(self) -> tuple[TrainingStep, str]:
        """Restores the state after `first_step`, and the metrics up to it."""
        stage, ranks = self.job.stage, {"rank": self.rank, "world_size": self.world_size}
        device = ray.train.torch.get_device() if self.config.gpus_per_worker else torch.device("cpu")
        torch.manual_seed(self.config.seed)
        if not self.first_step:
            return TrainingStep(_on(stage.build(None), device), self.config, **ranks), ""
        with tempfile.TemporaryDirectory(prefix="openvis-") as name:
            folder = Path(name)
            self.output.outlast(lambda: self.output.files.download_folder(checkpoint_path(self.first_step), folder))
            step = TrainingStep(_on(stage.build(folder / "model"), device), self.config, **ranks)
            step.load_state(_load_optimizer(folder / OPTIMIZER))
            assert json.loads((folder / STATE).read_bytes())["step"] == self.first_step
            return step, (folder / METRICS).read_text(encoding="utf-8")

    def _save(self, done: int, log: TrainingLog) -> None:
        """Begins to store a checkpoint, which holds the metrics of `log`; all workers have the same weights."""

        def write(folder: Path) -> None:
            self.step.objective.save(folder / "model")
            torch.save(self.step.state(), folder / OPTIMIZER)
            (folder / METRICS).write_text(log.text(), encoding="utf-8")
            write_state(folder, {"step": done, "stage": self.job.stage.fingerprint(), **self.config.identity()})

        self.saved = done
        self.upload.begin(done, write)
        with left_while_away():
            log.publish()

    def _report(self, done: int, metrics: dict[str, float]) -> bool:
        """Reports the progress to the driver, without waiting; returns whether it has asked for a checkpoint."""
        scores = {name.removeprefix(VALIDATION): value for name, value in metrics.items() if VALIDATION in name}
        self.progress = replace(
            self.progress,
            step=done,
            loss=metrics["loss"],
            scores=scores or self.progress.scores,
            seconds=self.progress.seconds + metrics["seconds"],
            data_seconds=self.progress.data_seconds + metrics["data_seconds"],
        )
        if self.told is not None and not ray.wait([self.told], timeout=0)[0]:
            self.job.monitor.update.remote(self.progress)
            return False
        wanted = self.told is not None and ray.get(self.told)
        self.told = self.job.monitor.update.remote(self.progress)
        return wanted

    def _agree(self, step: int) -> int:
        """Returns the value of the first worker."""
        steps = [step]
        if self.world_size > 1:
            dist.broadcast_object_list(steps, src=0)
        return steps[0]

    def _longest(self, seconds: float) -> float:
        """Returns the longest time of all workers, for which the others wait."""
        if self.world_size == 1:
            return seconds
        longest = torch.tensor([seconds], device=self.step.device)
        dist.all_reduce(longest, op=dist.ReduceOp.MAX)
        return float(longest)


def _load_optimizer(file: Path) -> dict[str, Any]:
    """Loads the optimizer's state; torch's own message would advise to run whatever code is in the file.

    On the CPU: the optimizer takes the moments to its parameters, and would wait for counters on a GPU in every step.
    """
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{file.name} of the last checkpoint is damaged; remove its folder to resume from an earlier one"
        ) from None
    return state


def _on(objective: Any, device: torch.device) -> Any:
    return objective.to(device)


def _closable(batches: Iterator[list[Any]]) -> Generator[list[Any], None, None]:
    """Wraps an iterator in a generator; closing it releases the iterator."""
    yield from batches


def _last_scores(text: str) -> dict[str, float]:
    """Returns the scores of the last validation in the metrics."""
    for line in reversed(text.splitlines()):
        scores = {
            name.removeprefix(VALIDATION): value for name, value in json.loads(line).items() if VALIDATION in name
        }
        if scores:
            return scores
    return {}
