"""Loads the model and the vocabulary of a job."""

import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from openvis_model.options import Synonyms
from openvis_model.vocabulary import Vocabulary
from openvis_model.weights import light_model
from openvis_model.weights.light_model import LightModel
from pipelines.storage.files import Storage, bad_input
from pipelines.storage.objects import is_remote, local_copy

if TYPE_CHECKING:
    from openvis_model.folded.inst_former import FoldedInstFormer

_Loaded = TypeVar("_Loaded")

CHECKPOINT_FILES = re.compile(r"(adapter/)?\w+\.(json|safetensors)|tokenizer/\w+\.(json|model)")
"""Only these files of a checkpoint are copied."""


def load_model(checkpoint: str | None) -> "FoldedInstFormer":
    """Loads the model of a checkpoint folder, local or in the cloud, or the built-in model.

    Raises:
        ValueError: the checkpoint is missing or damaged; says what is wrong.
    """
    from openvis_model.weights.folded_model import load  # imports torch

    return _load(checkpoint, load)


def load_light_model(checkpoint: str | None) -> LightModel:
    """Loads the parts of a model that never see pixels, in a fraction of the time that the whole model takes.

    Args:
        checkpoint: a folder, local or in the cloud; None is the built-in model.

    Raises:
        ValueError: names what is wrong with the checkpoint.
    """
    return _load(checkpoint, light_model.load_light_model)


def load_vocabulary(path: str, synonyms: Synonyms = "mean") -> Vocabulary:
    """Reads the vocabulary of a file, local or in the cloud.

    Args:
        path: text or .json file.
        synonyms: how categories with several names are scored.

    Raises:
        ValueError: the file is missing or malformed; names the file and says what is wrong.
    """
    return replace(_read_vocabulary(path), synonyms=synonyms)


def _read_vocabulary(path: str) -> Vocabulary:
    if not is_remote(path):
        return Vocabulary.read(path)
    with bad_input("vocabulary"), local_copy(path) as content:
        copy = content.rename(content.with_name(path.rpartition("/")[2]))  # its ending says how to read it
        try:
            return Vocabulary.read(copy)
        except ValueError as error:
            raise ValueError(str(error).replace(str(copy), path)) from error


def vocabulary_fingerprint(vocabulary: Vocabulary) -> str:
    """Returns a hash of all names, synonyms included, and of how they are scored."""
    return hashlib.sha256(repr(vocabulary.identity).encode()).hexdigest()


def _load(checkpoint: str | None, load: Callable[[str | None], _Loaded]) -> _Loaded:
    if checkpoint is None or not is_remote(checkpoint):
        return load(checkpoint)
    with tempfile.TemporaryDirectory(prefix="openvis-checkpoint-") as folder:
        with bad_input("checkpoint"):
            Storage(checkpoint).download_folder(".", Path(folder), CHECKPOINT_FILES.fullmatch)
        try:
            return load(folder)
        except ValueError as error:
            raise ValueError(str(error).replace(folder, checkpoint)) from error
