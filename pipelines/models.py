"""The model and the names that a job runs with."""

import hashlib
import re
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from openvis_model.inst_former import InstFormer
from openvis_model.vocabulary import Vocabulary
from openvis_model.weights import fingerprint, load_checkpoint
from pipelines import s3
from pipelines.results import Results

BUILT_IN = Path(__file__).parent / "built_in_model"
"""Checkpoint folder of the built-in model: the mini preset, trained on Shapes, whose words alone it knows."""

_FILES = re.compile(r"(adapter/)?\w+\.(json|safetensors)")  # of a checkpoint; nothing else is downloaded


def load_model(checkpoint: str | None) -> InstFormer:
    """The model of a checkpoint folder, local or on S3, or the built-in one.

    Raises:
        ValueError: what is wrong with the checkpoint.
    """
    if checkpoint is not None and s3.is_s3(checkpoint):
        return _load_from_s3(checkpoint)
    return load_checkpoint(BUILT_IN if checkpoint is None else Path(checkpoint))


def load_vocabulary(path: str) -> Vocabulary:
    """The vocabulary of a text file, local or on S3.

    Raises:
        ValueError: names the file and what is wrong with it.
    """
    if not s3.is_s3(path):
        return Vocabulary.read(path)
    try:
        with s3.local_copy(path) as copy:
            try:
                return Vocabulary.read(copy)
            except ValueError as error:
                raise ValueError(str(error).replace(str(copy), path)) from error
    except OSError as error:
        raise ValueError(f"vocabulary: {error.filename}: {error.strerror}") from error


def of_other_models(results: Results, model: InstFormer) -> pa.Array:
    """Ids of labelled videos whose embeddings are not in a model's space, since another one labelled them.

    Raises:
        ValueError: that is all of them.
    """
    mine, ok, others = fingerprint(model), 0, []
    for videos in results.scan("videos", ("video_id", "status", "model_fingerprint")):
        labelled = videos.filter(pc.equal(videos["status"], "ok"))
        ok += labelled.num_rows
        others += labelled.filter(pc.not_equal(labelled["model_fingerprint"], mine))["video_id"].chunks
    found = pa.chunked_array(others, pa.string()).combine_chunks()
    if ok and len(found) == ok:
        raise ValueError(
            f"checkpoint: all {ok} videos in {results.storage.root} were labelled with another model; "
            "give the checkpoint that they were labelled with"
        )
    return found


def vocabulary_fingerprint(vocabulary: Vocabulary) -> str:
    """Of all names, synonyms among them."""
    return hashlib.sha256(repr(vocabulary.categories).encode()).hexdigest()


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
