"""The model that a job runs."""

from pathlib import Path

import torch

from openvis_model.config import mini
from openvis_model.inst_former import InstFormer
from openvis_model.vocabulary import prompt_words
from openvis_model.weights import load_checkpoint
from pipelines.datasets.shapes_categories import CATEGORIES


def load_model(checkpoint: str | None) -> InstFormer:
    """The model of a checkpoint folder, or the built-in one.

    The built-in model is the mini preset for the words of Shapes. It is not trained yet; its random weights are the
    same everywhere.

    Raises:
        ValueError: what is wrong with the checkpoint.
    """
    if checkpoint is not None:
        return load_checkpoint(Path(checkpoint))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return InstFormer(mini(prompt_words(category.name for category in CATEGORIES))).eval()
