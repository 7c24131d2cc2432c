"""The model and the names that a job runs with."""

import hashlib
import re
import tempfile
from pathlib import Path

from openvis_model.inst_former import InstFormer
from openvis_model.vocabulary import Vocabulary
from openvis_model.weights.checkpoint import load
from pipelines.storage import s3
from pipelines.storage.files import Storage, bad_input

_FILES = re.compile(r"(adapter/)?\w+\.(json|safetensors)")  # of a checkpoint; nothing else is downloaded


def load_model(checkpoint: str | None) -> InstFormer:
    """The model of a checkpoint folder, local or on S3, or the built-in one.

    Raises:
        ValueError: what is wrong with the checkpoint.
    """
    if checkpoint is not None and s3.is_s3(checkpoint):
        return _load_from_s3(checkpoint)
    return load(checkpoint)


def load_vocabulary(path: str) -> Vocabulary:
    """The vocabulary of a text file, local or on S3.

    Raises:
        ValueError: names the file and what is wrong with it.
    """
    if not s3.is_s3(path):
        return Vocabulary.read(path)
    with bad_input("vocabulary"), s3.local_copy(path) as copy:
        try:
            return Vocabulary.read(copy)
        except ValueError as error:
            raise ValueError(str(error).replace(str(copy), path)) from error


def vocabulary_fingerprint(vocabulary: Vocabulary) -> str:
    """Of all names, synonyms among them."""
    return hashlib.sha256(repr(vocabulary.categories).encode()).hexdigest()


def _load_from_s3(checkpoint: str) -> InstFormer:
    with tempfile.TemporaryDirectory(prefix="openvis-checkpoint-") as folder:
        with bad_input("checkpoint"):
            Storage(checkpoint).download_folder(".", Path(folder), _FILES.fullmatch)
        try:
            return load(folder)
        except ValueError as error:
            raise ValueError(str(error).replace(folder, checkpoint)) from error
