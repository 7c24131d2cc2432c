"""What keeps a training worker supplied: torch's DataLoader over the steps, whose processes make samples ahead of time.

Sample i is the same whichever process makes it, and when; so training resumes at any step, with any number of workers.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from multiprocessing import connection, parent_process
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipelines.training.packing import pack, unpack
from pipelines.training.share import Share

T = TypeVar("T")

_AHEAD = 8
"""Steps made ahead of time, unless two per decoder are more."""

_PRELOADED = ["pipelines.training.loader", "pipelines.training.mixture", "ray"]
"""Modules that the server imports once for all decoders. Ray is among them because a child of a Ray worker imports the
main script of that worker."""


def batches(sampler: Callable[[int], T], share: Share, *, decoders: int) -> Iterator[list[T]]:
    """Yields a worker's samples, a list per step, in the order of steps.

    Closing the iterator ends its processes, the decoders. One that dies is replaced, once per step.

    Args:
        sampler: makes a sample from its number; it is pickled once, and decoders share the memory of its arrays.
        share: which samples.
        decoders: number of processes.

    Raises:
        ValueError: `decoders` is out of range; while iterating, the sampler raised it for this step.
        RuntimeError: while iterating, a decoder and its replacement died, or failed with another error.
    """
    if decoders < 1:
        raise ValueError(f"decoders: expected at least 1, got {decoders}")
    return _batches(_Steps(sampler, share), decoders)


def _batches(steps: "_Steps[T]", decoders: int) -> Iterator[list[T]]:
    step, lost = steps.share.first_step, Counter[int]()
    while step < steps.share.last_step and lost[step] < 2:
        try:
            for row in _start(steps, step, decoders):
                if isinstance(row, ValueError):
                    raise row
                yield unpack(row)
                step += 1
        except (RuntimeError, OSError, EOFError) as error:  # a decoder died or failed: all of them are replaced
            lost[step] += 1
            reason = str(error) or repr(error)
    if step < steps.share.last_step:
        raise RuntimeError(f"step {step + 1}: its samples could not be made in two attempts ({reason})")


def _start(steps: "_Steps[T]", first_step: int, decoders: int) -> Iterator[Tensor | ValueError]:
    """Starts the decoders; yields packed samples, or an error, for each step from `first_step` on."""
    # Forked from a Ray worker, decoders would inherit locks that its threads hold. The fork server has no threads.
    context: Any = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=range(first_step, steps.share.last_step),
        collate_fn=_as_it_is,
        num_workers=decoders,
        prefetch_factor=max(2, -(-_AHEAD // decoders)),
        multiprocessing_context=context,
        worker_init_fn=_end_with_parent,
        generator=torch.Generator(),  # otherwise the loader draws a seed from torch's global generator
    )
    with _one_thread():
        return iter(loader)


class _Steps(Dataset[Tensor | ValueError], Generic[T]):
    """A worker's samples by step, packed.

    A decoder sends only the handle of a tensor. Sent through the pipe, large samples could be cut off when the decoder
    is killed, and the training worker would wait forever for the rest.
    """

    def __init__(self, sampler: Callable[[int], T], share: Share) -> None:
        self.packed = pack(sampler).share_memory_()
        self.share = share

    @cached_property
    def sampler(self) -> Callable[[int], T]:
        sampler: Callable[[int], T] = unpack(self.packed)
        return sampler

    def __getitem__(self, step: int) -> Tensor | ValueError:
        try:
            samples = pack([self.sampler(number) for number in self.share.numbers(step)])
        except ValueError as error:
            return ValueError(str(error) or repr(error))
        # In the queue's own thread, an error, as of full shared memory, would be printed and nobody told.
        shared: Tensor = samples.share_memory_()
        return shared


def _as_it_is(row: Any) -> Any:
    return row


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limits the numeric libraries of processes that start inside the block to one thread."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _end_with_parent(decoder: int) -> None:
    """Ends the decoder as soon as its training worker is gone, even if it was killed."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
