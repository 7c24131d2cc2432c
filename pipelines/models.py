"""Loads the model and the vocabulary of a job."""

import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from openvis_model.options import Synonyms
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import Vocabulary, VocabularyEmbedding
from openvis_model.weights import light_model
from openvis_model.weights.light_model import LightModel
from pipelines.storage.files import Storage, bad_input, folder_of
from pipelines.storage.objects import is_remote, local_copy

if TYPE_CHECKING:
    from openvis_model.folded.inst_former import FoldedInstFormer
    from openvis_model.picture_encoder import PictureEncoder

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


def load_picture_encoder(checkpoint: str | None) -> "PictureEncoder":
    """Loads the part of a model that embeds pictures; raises as `load_model`."""
    from openvis_model.weights.folded_model import load_picture_encoder  # imports more of torch

    return _load(checkpoint, load_picture_encoder)


def embed(vocabulary: Vocabulary, model: LightModel, checkpoint: str | None) -> VocabularyEmbedding:
    """Embeds a vocabulary; loads the model's vision tower if it is needed.

    Args:
        vocabulary: its exemplars have been read.
        model: the light model of the checkpoint.
        checkpoint: a folder, local or in the cloud; None is the built-in model.

    Raises:
        ValueError: as `embed_vocabulary`.
    """
    return embed_vocabulary(vocabulary, model.text_encoder, partial(load_picture_encoder, checkpoint), reference=True)


def load_vocabulary(path: str, synonyms: Synonyms = "mean") -> Vocabulary:
    """Reads a vocabulary, local or in the cloud, and checks its pictures; tracks are left to `archive.exemplars`.

    Args:
        path: text or .json file; paths in it are relative to its folder.
        synonyms: how categories with several names or exemplars are scored.

    Raises:
        ValueError: the file or a picture is missing or malformed; names the file and says what is wrong.
    """
    return read_pictures(replace(_read_vocabulary(path), synonyms=synonyms))


def read_pictures(vocabulary: Vocabulary) -> Vocabulary:
    """Returns a vocabulary whose pictures, local or in the cloud, have been checked.

    Raises:
        ValueError: names the place of a picture that cannot be used, what is wrong, and the remedy.
    """
    if not vocabulary.shown:
        return vocabulary
    from openvis_model import pictures  # imports PIL

    return pictures.read_pictures(vocabulary, partial(_content, most=pictures.MAX_BYTES))


def _content(path: str, most: int) -> bytes:
    """Returns a file's content, at most `most` + 1 bytes, so that the caller can tell that it is larger."""
    storage, name = folder_of(path)
    with storage.read(name) as file:
        return file.read(most + 1)


def _read_vocabulary(path: str) -> Vocabulary:
    if not is_remote(path):
        return Vocabulary.read(path)
    with bad_input("vocabulary"), local_copy(path) as content:
        copy = content.rename(content.with_name(path.rpartition("/")[2]))  # its ending says how to read it
        try:
            return Vocabulary.read(copy, original=path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(copy), path)) from error


def vocabulary_fingerprint(vocabulary: Vocabulary) -> str:
    """Returns a hash of all names, synonyms included, of what exemplars show, and of how they are scored."""
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
