"""Data-parallel training on Ray Train, which resumes by itself after a worker dies, or when the job runs again.

    train → Monitor (an actor), TorchTrainer → work (in each worker): batches → step → metrics, checkpoints

The step to resume at comes from the output alone. Ray Train's own snapshot is not written atomically: a run killed
meanwhile could not start again.
"""

import json
import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.cluster.connection import connect
from pipelines.cluster.errors import reason
from pipelines.cluster.liveness import RayDiedError, answers, waiting_for_ray
from pipelines.cluster.nodes import check_gpus, cores, machines_to_go
from pipelines.storage.lease import Lease, hold_lease
from pipelines.storage.outage import outlast
from pipelines.training.config import TrainingConfig
from pipelines.training.output import METRICS, MODEL, TrainingOutput
from pipelines.training.progress import Monitor, TrainingProgress
from pipelines.training.stage import Stage
from pipelines.training.worker import VALIDATION, Job, work_on

_ANSWER_S = 600.0  # for the monitor, which has to start first
_TELL_S = 60.0
_COLLECTIVE_S = 1800  # for what workers do together, as by Ray's default

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """Result of a run.

    Attributes:
        steps: steps of the whole training.
        first_step: steps that earlier runs had done; equal to `steps` if nothing was left to do.
        restarts: restarts of the workers.
        loss: total loss of the last step.
        scores: scores of the last validation.
        model: checkpoint folder of the result.
        seconds: duration of the run.
    """

    steps: int
    first_step: int
    restarts: int
    loss: float
    scores: dict[str, float]
    model: str
    seconds: float


def train(
    config: TrainingConfig, stage: Stage, report: Callable[[TrainingProgress], None] = lambda progress: None
) -> TrainingSummary:
    """Trains to the last step; resumes at the last checkpoint of earlier runs with the same output.

    Args:
        config: settings of the training.
        stage: what is trained, and on what data.
        report: called with the progress about once a second, after the first step is done.

    Raises:
        ValueError: before training starts: the output cannot be used, belongs to another training, or another run is
            writing to it.
        RuntimeError: the run broke off, Ray died, or there was no room for the workers for `stall_s`; the last
            checkpoint is kept.
        OSError: the output was away for longer than `stall_s`.
    """
    start = time.monotonic()
    least, most = config.worker_processes()
    check_gpus("gpus_per_worker", config.gpus_per_worker, "workers", least, torch.cuda.device_count())
    output = TrainingOutput.open(config.output)
    with hold_lease(output.files) as lease:
        finished = output.begin({**config.identity(), "stage": stage.fingerprint()})
        first_step = config.steps if finished else max(output.intact(), default=0)
        restarts = 0
        if not finished:
            connect(max(cores(), math.ceil(most * config.cpus_per_worker)))
            held = replace(output, holder=lease.id, stall_s=config.stall_s)
            restarts = _run(config, stage, held, lease, report)
            held.outlast(partial(held.finish, config.steps))
    last = outlast(partial(_last_metrics, output), config.stall_s)
    return TrainingSummary(
        steps=config.steps,
        first_step=first_step,
        restarts=restarts,
        loss=last["loss"],
        scores={name.removeprefix(VALIDATION): value for name, value in last.items() if VALIDATION in name},
        model=f"{config.output.rstrip('/')}/{MODEL}",
        seconds=time.monotonic() - start,
    )


def _run(
    config: TrainingConfig,
    stage: Stage,
    output: TrainingOutput,
    lease: Lease,
    report: Callable[[TrainingProgress], None],
) -> int:
    """Trains; returns the number of restarts."""
    least, most = config.worker_processes()
    # Workers keep the driver's working folder, so that relative paths of the stage stay valid.
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # others may go away
    actor: Any = ray.remote(Monitor)
    monitor = actor.options(num_cpus=0, scheduling_strategy=here).remote()
    # Ray Train's marker file. It lies with the controller, on this machine: checkpoints go to the output through our
    # own storage, and are never given to `ray.train.report`.
    with tempfile.TemporaryDirectory(prefix="openvis-train-", ignore_cleanup_errors=True) as own_files:
        trainer = TorchTrainer(
            work_on,
            # A reference, since Ray Train's controller would import all networks to read the job itself.
            train_loop_config={"job": ray.put(Job(config=config, stage=stage, output=output, monitor=monitor))},
            # Workers wait for the first one, which may outlast the storage twice before it has restored a checkpoint.
            torch_config=TorchConfig(timeout_s=int(2 * config.stall_s) + _COLLECTIVE_S),
            scaling_config=ScalingConfig(
                num_workers=least if least == most else (least, most),  # type: ignore[arg-type] # stub of Tune's
                use_gpu=config.gpus_per_worker > 0,
                resources_per_worker={"CPU": config.cpus_per_worker}
                | ({"GPU": config.gpus_per_worker} if config.gpus_per_worker else {}),
            ),
            run_config=RunConfig(
                name="run",
                storage_path=own_files,
                failure_config=FailureConfig(max_failures=config.max_failures),
            ),
        )
        fitting, told, start = _Fitting(trainer), set[str](), _Start(config)
        try:
            while not fitting.over.wait(timeout=1):
                lease.check_holder(config.stall_s)
                start.check(monitor)
                _report(monitor, report)
                _warn_workers(monitor, told)
            failure, progress = answers([monitor.failure.remote(), monitor.progress.remote()], _ANSWER_S)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                _store_last(monitor, fitting, config.grace_s)
            if not isinstance(error, RayDiedError):  # then nothing can be asked of Ray
                ray.kill(monitor)
            raise
        ray.kill(monitor)
    if failure:  # it would come again
        raise RuntimeError(f"the run broke off: {failure}; its last checkpoint is kept") from fitting.error
    if fitting.error:
        raise RuntimeError(
            f"the run broke off: {reason(fitting.error)}; its last checkpoint is kept; run it again"
        ) from fitting.error
    return progress.restarts if progress else 0


class _Fitting(threading.Thread):
    """Runs Ray Train in its own thread: in the main thread it would handle Ctrl-C itself, and exit with 0."""

    def __init__(self, trainer: TorchTrainer) -> None:
        super().__init__(daemon=True)
        self.trainer = trainer
        self.error: Exception | None = None
        self.over = threading.Event()  # after an interrupted `join`, Python 3.11 takes a thread for dead
        self.start()

    def run(self) -> None:
        """Fits the trainer; keeps its error."""
        try:
            with waiting_for_ray():
                self.trainer.fit()
        except Exception as error:
            self.error = error
        finally:
            self.over.set()


class _Start:
    """The wait for the first worker: Ray Train says nothing, and has no end of its own, where there is no room."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.begun = False
        self.since = self.told = time.monotonic()

    def check(self, monitor: Any) -> None:
        """Tells about once a minute what the workers wait for.

        Raises:
            RuntimeError: they have waited for `stall_s`.
        """
        if self.begun or time.monotonic() - self.told < _TELL_S:
            return
        (machines,) = answers([monitor.machines.remote()], _ANSWER_S)
        self.begun, self.told = bool(machines), time.monotonic()
        if self.begun:
            return
        config, there = self.config, ray.cluster_resources()  # type: ignore[no-untyped-call]
        wanted = f"{config.workers} workers, {config.cpus_per_worker:g} CPUs and {config.gpus_per_worker:g} GPUs each"
        room = f"the cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
        _log.warning("waiting for %s: %s", wanted, room)
        if self.told - self.since >= config.stall_s:
            raise RuntimeError(f"no room for {wanted}: {room}; lower these options, or add machines")


def _report(monitor: Any, report: Callable[[TrainingProgress], None]) -> None:
    (progress,) = answers([monitor.progress.remote()], _ANSWER_S)
    if progress:
        report(progress)


def _warn_workers(monitor: Any, told: set[str]) -> None:
    """Asks for a checkpoint as soon as a worker's machine is about to be taken away, once for each machine.

    Args:
        monitor: handle of the `Monitor`.
        told: Ray's ids of such machines, to which new ones are added.
    """
    going = machines_to_go()
    if not going.keys() - told:
        return
    (machines,) = answers([monitor.machines.remote()], _ANSWER_S)
    if ours := sorted(going.keys() & machines - told):
        told |= set(ours)
        names = ", ".join(going[node] for node in ours)
        _log.warning("machine %s is about to be taken away; a checkpoint is stored at once", names)
        monitor.notify.remote()


def _store_last(monitor: Any, fitting: _Fitting, grace_s: float) -> None:
    """Has the workers store a checkpoint before the run ends, within `grace_s`."""
    deadline = time.monotonic() + grace_s
    with suppress(RayError, RayDiedError, KeyboardInterrupt):
        monitor.notify.remote()
        while not fitting.over.is_set() and time.monotonic() < deadline:
            (step,) = answers([monitor.stored_at.remote()], max(0.1, deadline - time.monotonic()))
            if step is not None:
                _log.warning("interrupted: the checkpoint of step %d is stored", step)
                return
            time.sleep(0.1)


def _last_metrics(output: TrainingOutput) -> dict[str, Any]:
    """Reads the last line of the metrics."""
    lines = (output.files.read_bytes(METRICS) or b"").decode().splitlines()
    last: dict[str, Any] = json.loads(lines[-1])
    return last
