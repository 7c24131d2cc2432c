"""The model operator of the labelling pipeline, on GPUs: batches of frames to instances."""

import logging
import os
import time
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from pipelines.cluster import node_id
from pipelines.labelling.checkpoint_copy import SharedCheckpoint
from pipelines.labelling.config import Precision
from pipelines.labelling.instance_bytes import encode_instances
from pipelines.labelling.rows import BatchRow, LabelledRow


class Model:
    """Turns a row of frames into a row of instances; holds the model of one actor.

    Args:
        checkpoint: what the driver labels with.
        device: `cuda` or `cpu`.
        actors: number of model actors that share this machine's cores.
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
        precision: Precision,
        compile: bool,  # noqa: A002 - as everywhere else
        objectness_floor: float,
    ) -> None:
        if device == "cpu":
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // actors))
        self.model = checkpoint.load().to(device)
        if compile:
            self.model.mask_proposal.compile()
            self.model.classifier.compile()
        self.objectness_floor = objectness_floor
        self.autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

    def __call__(self, batches: pa.Table) -> pa.Table:
        """Returns the `LabelledRow` of the only `BatchRow`; one with an error or without frames passes through."""
        (batch,) = BatchRow.from_table(batches)
        passes_through = batch.error is not None or not len(batch.frames)
        return (batch.to(LabelledRow) if passes_through else self._label(batch)).to_table()

    def _label(self, batch: BatchRow) -> LabelledRow:
        assert batch.info is not None
        start = time.perf_counter()
        try:
            with self.autocast:
                instances = self.model(
                    torch.from_numpy(np.ascontiguousarray(batch.frames)),
                    objectness_floor=self.objectness_floor,
                    frame_size=(batch.info.height, batch.info.width),
                )
        except torch.OutOfMemoryError as error:
            return batch.to(LabelledRow, error=f"the device's memory is full: {error}", lost=True, node=node_id())
        except torch.AcceleratorError as error:  # every later call in this process would fail as well
            logging.getLogger(__name__).critical("the device has failed, this process ends: %s", error)
            os._exit(1)  # Ray restarts the actor and repeats the batch
        except Exception as error:  # the failure of one video must not stop the others
            return batch.to(LabelledRow, error=f"model failed on frames from {batch.frame[0]}: {error!r}")
        return batch.to(LabelledRow, instances=encode_instances(instances), model_s=time.perf_counter() - start)
