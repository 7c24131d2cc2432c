"""The model that a job runs."""

import re
import tempfile
from pathlib import Path

import torch

from openvis_model.config import mini
from openvis_model.inst_former import InstFormer
from openvis_model.vocabulary import prompt_words
from openvis_model.weights import load_checkpoint
from pipelines import s3
from pipelines.datasets.shapes_categories import CATEGORIES

_FILES = re.compile(r"(adapter/)?\w+\.(json|safetensors)")  # of a checkpoint; nothing else is downloaded


def load_model(checkpoint: str | None) -> InstFormer:
    """The model of a checkpoint folder, local or on S3, or the built-in one.

    The built-in model is the mini preset for the words of Shapes. It is not trained yet; its random weights are the
    same everywhere.

    Raises:
        ValueError: what is wrong with the checkpoint.
    """
    if checkpoint is not None and s3.is_s3(checkpoint):
        return _load_from_s3(checkpoint)
    if checkpoint is not None:
        return load_checkpoint(Path(checkpoint))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return InstFormer(mini(prompt_words(category.name for category in CATEGORIES))).eval()


def _load_from_s3(checkpoint: str) -> InstFormer:
    with tempfile.TemporaryDirectory(prefix="openvis-checkpoint-") as folder:
        try:
            for found in s3.list_objects(f"{checkpoint.rstrip('/')}/"):
                name = found.uri.removeprefix(f"{checkpoint.rstrip('/')}/")
                if _FILES.fullmatch(name):
                    Path(folder, name).parent.mkdir(exist_ok=True)
                    with Path(folder, name).open("wb") as file:
                        s3.download(found.uri, file, etag=found.etag)
            return load_checkpoint(folder)
        except OSError as error:
            raise ValueError(f"checkpoint: {error.filename}: {error.strerror}") from error
        except ValueError as error:
            raise ValueError(str(error).replace(folder, checkpoint)) from error
