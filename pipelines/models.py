"""The model that a job runs."""

from pathlib import Path

from openvis_model.inst_former import InstFormer
from openvis_model.weights import load_checkpoint

BUILT_IN = Path(__file__).parent / "built_in_model"
"""Checkpoint folder of the built-in model: the mini preset, trained on Shapes, whose words alone it knows."""


def load_model(checkpoint: str | None) -> InstFormer:
    """The model of a checkpoint folder, or the built-in one.

    Raises:
        ValueError: what is wrong with the checkpoint.
    """
    return load_checkpoint(BUILT_IN if checkpoint is None else Path(checkpoint))
