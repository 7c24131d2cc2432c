"""The middle stage of labelling, on GPUs: batches of frames to instances."""

import logging
import os
import pickle
import time
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8

from pipelines.labelling.batch import LabelledBatch
from pipelines.labelling.config import Precision
from pipelines.models import load_model


class Model:
    """Rows of batches of frames become rows of labelled batches; holds the model of one actor.

    Args:
        checkpoint: which model; the built-in one if None.
        device: `cuda` or `cpu`.
        actors: that run the model beside each other, and share a CPU.
        precision: `bfloat16` runs the model under autocast.
        compile: whether the networks are compiled by torch.
        objectness_floor: proposals below are not embedded.
    """

    def __init__(
        self,
        checkpoint: str | None,
        *,
        device: Literal["cuda", "cpu"],
        actors: int,
        precision: Precision,
        compile: bool,  # noqa: A002 - as everywhere else
        objectness_floor: float,
    ) -> None:
        if device == "cpu":
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // actors))
        self.model = load_model(checkpoint).to(device).fold_for_inference()
        if compile:
            self.model.mask_proposal.compile()
            self.model.classifier.compile()
        self.objectness_floor = objectness_floor
        self.autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16")

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """One row in, one row out."""
        labelled: LabelledBatch = pickle.loads(rows["head"][0])  # noqa: S301
        if labelled.error is None and labelled.frame:
            labelled = self._label(labelled, rows["frames"][0])
        return {"video_id": [labelled.video_id], "labelled": [pickle.dumps(labelled)]}

    def _label(self, labelled: LabelledBatch, frames: UInt8[np.ndarray, "T H W 3"]) -> LabelledBatch:
        assert labelled.info is not None
        start = time.perf_counter()
        try:
            with self.autocast:
                instances = self.model(
                    torch.from_numpy(np.ascontiguousarray(frames)),
                    objectness_floor=self.objectness_floor,
                    frame_size=(labelled.info.height, labelled.info.width),
                )
        except torch.AcceleratorError as error:  # from then on every call of this process fails
            logging.getLogger(__name__).critical("this process ends, its device is out of order: %s", error)
            os._exit(1)  # Ray starts another one, and the batch again
        except Exception as error:  # a failure of one video never stops the others
            return replace(labelled, error=f"model failed on frames from {labelled.frame[0]}: {error!r}")
        return replace(labelled, instances=pickle.dumps(tuple(instances)), model_s=time.perf_counter() - start)
