"""A stand-in for the model, for tests of what happens around it: no network is imported or run."""

import threading
from typing import Any

import torch
from torch import Tensor

from openvis_model.instances import Instances
from openvis_model.rle import encode_logits
from openvis_model.weights.files import BUILT_IN, read_config
from pipelines.labelling.checkpoint_copy import SharedCheckpoint
from pipelines.labelling.model_operator import Model

BUILT_IN_MODEL = SharedCheckpoint(None, read_config(BUILT_IN)[1], "")
"""The built-in model, as a model actor gets it."""

TOKEN, QUERY = 128, 64
"""Widths of the built-in model's instance tokens and instance queries."""


class DiscModel(Model):
    """Finds two discs that never move in every frame."""

    def __init__(self, checkpoint: SharedCheckpoint, **options: Any) -> None:
        self.model = find_discs
        self.device, self.bfloat16 = "cpu", False
        self._turns = threading.Semaphore(options["at_once"])
        self.batch_size, self.objectness_floor = options["batch_size"], 0.0


def find_discs(frames: Tensor, *, objectness_floor: float, frame_size: tuple[int, int]) -> list[Instances]:
    """Takes and returns what `InstFormer` does."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 24), indexing="xy")
    logits = torch.stack([0.3 - (x - center).hypot(y) for center in (-0.5, 0.5)])
    generator = torch.Generator().manual_seed(0)
    tokens = torch.nn.functional.normalize(torch.randn(2, TOKEN, generator=generator), dim=-1)
    discs = Instances(
        objectness=torch.tensor([0.9, 0.8]),
        instance_tokens=tokens,
        queries=torch.randn(2, QUERY, generator=generator),
        query_index=torch.arange(2),
        colours=torch.tensor([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]]),
        masks=encode_logits(logits, frame_size),
    )
    return [discs] * len(frames)
