"""Is the model ever waiting? Clips per second of the input pipeline, against those that a training step takes.

python -m tests.benchmarks.training

One pipeline with one decoding process, and one worker with one thread, each on its own; no wall time is asserted.
"""

import tempfile
import time
from pathlib import Path

import torch

from openvis_model.training.config import StartConfig
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.training.config import TrainingConfig
from pipelines.training.data import TrainingDataConfig
from pipelines.training.share import Share
from pipelines.training.stage_config import InstanceStageConfig
from pipelines.training.stages import InstanceStage
from pipelines.training.step import TrainingStep

BATCH, VIDEOS, WARM_UP = 4, 32, 8
SIZES = {"96 × 128": (96, 128, 40), "384 × 640": (384, 640, 12)}
"""Height and width of videos and clips, and steps that are measured; the model is the miniature in both."""


def main() -> None:
    """Prints both rates and their ratio for each size."""
    torch.set_num_threads(1)
    for title, (height, width, steps) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            split = write_split(Path(folder), "train", VIDEOS, 0, SceneConfig(height=height, width=width)).path
            data = TrainingDataConfig(
                annotations=str(split / "instances.json"), frames=2, max_stride=6, height=height, width=width
            )
            stage = InstanceStage(InstanceStageConfig(start=StartConfig(preset="mini"), data=data))
            share = Share(first_step=0, last_step=WARM_UP + steps, batch_size=BATCH, rank=0, world_size=1)
            batches = stage.batches(share)
            kept = [next(batches) for _ in range(WARM_UP)]
            start = time.perf_counter()
            taken = sum(1 for _ in batches)
            supplied = taken * BATCH / (time.perf_counter() - start)
        config = TrainingConfig(output="unused", steps=WARM_UP, batch_size=BATCH)
        step = TrainingStep(stage.build(None), config)
        step(0, kept[0])
        start = time.perf_counter()
        for number in range(1, WARM_UP):
            step(number, kept[number])
        used = (WARM_UP - 1) * BATCH / (time.perf_counter() - start)
        print(f"{title}: {supplied:.1f} clips/s supplied, {used:.1f} used by a step, {supplied / used:.1f} ×")


if __name__ == "__main__":
    main()
