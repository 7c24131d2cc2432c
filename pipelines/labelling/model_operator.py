"""The model operator of the labelling pipeline, on GPUs: batches of frames to instances."""

import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate, groupby, pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from openvis_model.folded.layers import hold_in_bfloat16
from openvis_model.instances import Instances
from pipelines.cluster.nodes import cores, node_id
from pipelines.cluster.ray_data import check_restarts
from pipelines.labelling.checkpoint_copy import SharedCheckpoint
from pipelines.labelling.config import Precision
from pipelines.labelling.instance_bytes import encode_instances
from pipelines.labelling.rows import BatchRow, LabelledRow

AT_ONCE = 2
"""Calls of a model that labelling has at work at a time.

A GPU has one while the processor is busy with another: `tests.benchmarks.pipeline in_flight` compares numbers; one
leaves the GPU idle, more than two bring nothing. Without a GPU each has half of the cores, so fewer threads wait for
each other.
"""


class Model:
    """Turns rows of frames into rows of instances; holds the model of one actor.

    It may be called in several threads. On a GPU each has a CUDA stream: while one waits for its results, or encodes
    masks, the other's frames are copied and go through the networks. On a CPU they share the cores: threads that never
    wait for each other waste none of their time.

    Args:
        checkpoint: what the driver labels with.
        device: `cuda` or `cpu`.
        actors: number of model actors that share this machine's cores.
        at_once: most calls that work at a time; on a CPU, no more than there are threads.
        threads: most threads of each actor on a CPU; None takes its share of the cores.
        batch_size: frames that go through the model together.
        precision: `bfloat16` runs the model under autocast.
        compile: whether torch compiles the networks.
        objectness_floor: proposals below it are not embedded.
    """

    def __init__(
        self,
        checkpoint: SharedCheckpoint,
        *,
        device: Literal["cuda", "cpu"],
        actors: int,
        at_once: int,
        threads: int | None,
        batch_size: int,
        precision: Precision,
        compile: bool,  # noqa: A002 - as everywhere else
        objectness_floor: float,
    ) -> None:
        check_restarts()
        if device == "cpu":
            share = max(1, cores() // actors)
            threads = min(threads or share, share)
            at_once = min(at_once, threads)
            torch.set_num_threads(threads // at_once)
        self._turns = threading.Semaphore(at_once)
        self.device = device
        self.model = checkpoint.load()
        self.bfloat16 = precision == "bfloat16"
        for network in (self.model.mask_proposal, self.model.classifier):  # the rest is not used here
            network.to(device)
            if self.bfloat16:
                hold_in_bfloat16(network)
            if compile:
                network.compile()
        if device == "cuda":
            torch.cuda.synchronize()  # weights are there for all streams
        self.batch_size = batch_size
        self.objectness_floor = objectness_floor
        self._own, self._alone = threading.local(), threading.Lock()

    def __call__(self, batches: pa.Table) -> pa.Table:
        """Returns the `LabelledRow` of each `BatchRow`; one with an error or without frames passes through."""
        labelled: list[LabelledRow] = []
        with self._turns:
            for rows in fill_batches(list(BatchRow.from_table(batches)), self.batch_size):
                labelled += self._label(rows) if _has_frames(rows[0]) else [row.to(LabelledRow) for row in rows]
        return pa.concat_tables(row.to_table() for row in labelled)

    def _label(self, rows: Sequence[BatchRow]) -> list[LabelledRow]:
        """Returns the labels of rows whose frames go through the model together."""
        start = time.perf_counter()
        instances = self._instances(rows)
        if isinstance(instances, torch.OutOfMemoryError) and len(rows) == 1:
            with self._alone:  # another thread's batch may have taken the rest
                instances = self._instances(rows)
        if isinstance(instances, Exception):
            if len(rows) > 1:  # the failure of one video must not stop the others
                return [labelled for row in rows for labelled in self._label([row])]
            first, error = rows[0], instances
            if isinstance(error, torch.OutOfMemoryError):
                return [first.to(LabelledRow, error=f"the device's memory is full: {error}", lost=True, node=node_id())]
            return [first.to(LabelledRow, error=f"model failed on frames from {first.frame[0]}: {error!r}")]
        stops = [0, *accumulate(len(row.frames) for row in rows)]
        frame_s = (time.perf_counter() - start) / stops[-1]
        return [
            row.to(LabelledRow, instances=encode_instances(instances[i:j]), model_s=frame_s * (j - i))
            for row, (i, j) in zip(rows, pairwise(stops), strict=True)
        ]

    def _instances(self, rows: Sequence[BatchRow]) -> list[Instances] | Exception:
        """Returns the instances of all frames, or why there are none, without the traceback, which holds memory."""
        info = rows[0].info
        assert info is not None
        try:
            with self._stream(), torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16):
                frames = torch.from_numpy(np.concatenate([row.frames for row in rows]))
                if self.device == "cuda":
                    frames = frames.pin_memory().to(self.device, non_blocking=True)
                size = (info.height, info.width)
                found: list[Instances] = self.model(frames, objectness_floor=self.objectness_floor, frame_size=size)
                return found
        except torch.AcceleratorError as error:  # every later call in this process would fail as well
            logging.getLogger(__name__).critical("the device has failed, this process ends: %s", error)
            os._exit(1)  # Ray restarts the actor and repeats the batch
        except Exception as error:
            return error.with_traceback(None)

    def _stream(self) -> AbstractContextManager[object]:
        """Returns the stream of this thread: one thread need not wait for what the other has queued."""
        if self.device == "cpu":
            return nullcontext()
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream()
        return torch.cuda.stream(self._own.stream)


def fill_batches(rows: Sequence[BatchRow], batch_size: int) -> Iterator[list[BatchRow]]:
    """Yields the rows in groups that go through the model together, so that short videos fill a batch.

    Args:
        rows: batches of up to `batch_size` frames, of any videos.
        batch_size: frames of a group at most; a row that has more is a group of its own.

    Yields:
        Rows with frames of one size, from videos of one size; or rows without frames to label.
    """
    for _, alike in groupby(sorted(rows, key=_sizes), key=_sizes):
        group: list[BatchRow] = []
        for row in alike:
            if group and sum(len(each.frames) for each in (*group, row)) > batch_size:
                yield group
                group = []
            group.append(row)
        yield group


def _has_frames(row: BatchRow) -> bool:
    return row.error is None and len(row.frames) > 0


def _sizes(row: BatchRow) -> tuple[int, ...]:
    """Returns height and width of a row's frames and of its video, pixels; nothing for a row that passes through."""
    if row.info is None or not _has_frames(row):
        return ()
    return (*row.frames.shape[1:3], row.info.height, row.info.width)
