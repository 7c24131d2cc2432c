"""Measures the stages of labelling one after the other, in one process."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from openvis_model.folded.inst_former import FoldedInstFormer
from openvis_model.instances import Instances
from openvis_model.options import SIZE_DIVISOR, VideoTrackerConfig
from openvis_model.rle import encode_logits
from openvis_model.video_tracker import VideoTracker
from openvis_model.video_tracking import VideoTracking
from openvis_model.vocabulary import VocabularyEmbedding
from openvis_model.working_size import working_size
from pipelines.benchmark.machine import Machine, best_seconds
from pipelines.labelling.model_operator import AT_ONCE
from pipelines.labelling.video_writer import Tracked, mask_rows
from pipelines.video.decode import FrameBatch, decode
from pipelines.video.plan import VideoPlan

FRAMES = 16
"""Frames that the model and the tracker are measured on."""

DECODED = 64
"""Frames that decoding is measured on, opening the video included."""


@dataclass(frozen=True)
class Stage:
    """A stage, measured.

    Attributes:
        name: the stage.
        frame_s: time per frame, seconds.
        flops: multiplications and additions per frame in matrix products and convolutions; 0 where there are none.
        moved_bytes: weights and inputs, each counted once, per frame.
    """

    name: str
    frame_s: float
    flops: float = 0.0
    moved_bytes: float = 0.0

    def floor_s(self, machine: Machine) -> float:
        """Returns the time per frame at the machine's rate of products, or of copying if that takes longer, seconds."""
        return max(self.flops / machine.matmul_flops, self.moved_bytes / machine.copy_bytes)


class Stages:
    """One video and one model, stage by stage.

    Args:
        model: on its device.
        path: the video.
        plan: its plan.
        precision: of the products; for anything but float32 the model runs under autocast.
        objectness_floor: proposals below are not embedded.
        seconds: how long each stage is measured.
    """

    def __init__(
        self,
        model: FoldedInstFormer,
        path: str,
        plan: VideoPlan,
        *,
        precision: torch.dtype,
        objectness_floor: float,
        seconds: float,
    ) -> None:
        self.model = model
        self.path, self.plan, self.seconds = path, plan, seconds
        self.objectness_floor = objectness_floor
        self.device = next(model.buffers()).device
        self.size = (plan.info.height, plan.info.width)
        self.working_size = working_size(*self.size, short_side=model.short_side, divisor=SIZE_DIVISOR)
        self.precision = precision
        self.frames = torch.cat([torch.from_numpy(np.array(batch.frames)) for batch in self._decode(FRAMES)])

    def _decode(self, frames: int) -> list[FrameBatch]:
        segment = self.plan.segments[0]
        batches = decode(self.path, self.plan.info, segment, size=self.working_size, batch_size=FRAMES)
        return list(islice(batches, frames // FRAMES))

    def decode(self) -> Stage:
        """Measures reading and resizing, with one thread."""
        count = sum(len(batch.frames) for batch in self._decode(DECODED))
        return Stage("decode", best_seconds(lambda: self._decode(DECODED), self.seconds) / count)

    @torch.inference_mode()
    def networks(self, batch_size: int) -> list[Stage]:
        """Measures the model's parts: mask proposal, InstCLIP, and masks as run lengths."""
        frames = self._batch(batch_size)
        with self._autocast():
            proposals = self.model.mask_proposal(frames)
            kept = max(1, int((proposals.objectness >= self.objectness_floor).sum(1).max()))
            index = proposals.objectness.argsort(dim=1, descending=True)[:, :kept]
            logits = proposals.mask_logits.gather(
                1, index[..., None, None].expand(-1, -1, *proposals.mask_logits.shape[2:])
            )
            return [
                self._stage("mask proposal", self.model.mask_proposal, frames),
                self._stage("classifier", self.model.classifier, frames, logits, index),
                Stage(
                    "masks",
                    best_seconds(lambda: encode_logits(logits.flatten(0, 1), self.size), self.seconds) / batch_size,
                ),
            ]

    def whole_model(self, batch_size: int) -> float:
        """Returns the time of the model per frame, seconds; on a CPU with as many batches at once as in labelling."""
        frames = self._batch(batch_size)
        if self.device.type != "cpu":
            return best_seconds(lambda: self.label(frames), self.seconds) / batch_size
        threads = torch.get_num_threads()
        at_once = min(AT_ONCE, threads)
        torch.set_num_threads(threads // at_once)  # of each thread that starts now
        try:
            with ThreadPoolExecutor(at_once) as pool:
                taken = best_seconds(lambda: list(pool.map(self.label, [frames] * at_once)), self.seconds)
        finally:
            torch.set_num_threads(threads)
        return taken / (at_once * batch_size)

    def label(self, frames: Tensor) -> list[Instances]:
        """Returns the instances of frames on any device."""
        with self._autocast():
            instances: list[Instances] = self.model(
                frames, objectness_floor=self.objectness_floor, frame_size=self.size
            )
        return instances

    def track(self, vocabulary: VocabularyEmbedding) -> Stage:
        """Measures tracking and the rows of the masks."""
        instances = self.label(self.frames)
        tracker = VideoTracker(VideoTrackerConfig(), vocabulary, self.model.rollout_tracker)

        def track() -> None:
            tracking, tracked = VideoTracking(tracker), list[Tracked]()
            for frame, found in enumerate(instances):
                tracked.append(Tracked(frame, 0.0, found, tracking.add(frame, found).track_ids))
            mask_rows("video", tracked)
            tracking.finish()

        return Stage("track", best_seconds(track, self.seconds) / len(self.frames))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def _batch(self, size: int) -> Tensor:
        return torch.stack(list(islice(cycle(self.frames), size))).to(self.device)

    def _stage(self, name: str, module: nn.Module, *inputs: Tensor) -> Stage:
        batch_size = len(inputs[0])
        taken = best_seconds(lambda: module(*inputs), self.seconds) / batch_size
        flops = count_flops(lambda: module(*inputs)) / batch_size
        moved = (
            sum(each.nbytes for each in (*module.parameters(), *module.buffers())) + sum(each.nbytes for each in inputs)
        ) / batch_size
        return Stage(name, taken, flops, moved)


def count_flops(work: Callable[[], object]) -> float:
    """Returns the multiplications and additions of matrix products, convolutions and attention."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def best_batch_size(stages: Stages, sizes: Sequence[int]) -> tuple[int, dict[int, float]]:
    """Tries batch sizes, and returns the smallest that is within 2 % of the fastest, and the time of each per frame."""
    taken: dict[int, float] = {}
    for size in sizes:
        try:
            taken[size] = stages.whole_model(size)
        except torch.OutOfMemoryError:
            break
    if not taken:
        raise RuntimeError(f"the device's memory is full with a batch of {sizes[0]}; give a smaller batch_size")
    return min(size for size in taken if taken[size] <= 1.02 * min(taken.values())), taken
