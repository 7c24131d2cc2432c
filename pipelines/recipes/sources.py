"""Brings the parts of a model to this machine."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip

from openvis_model.clip import ClipConfig, nearest
from openvis_model.weights.clip_origin import HUB_CONFIG, clip_of_checkpoint, clip_of_hub, clip_of_tag
from openvis_model.weights.hub import CLIP_FILES, commit_of, fetch_clip, fetch_network, has_clip, has_network
from pipelines.recipes.recipe import ClipPart, ProposalPart
from pipelines.storage.files import Storage, bad_input, folder_of
from pipelines.storage.objects import is_remote

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_OF_A_FOLDER = re.compile(r"((adapter|tokenizer)/)?[\w.-]+\.(json|model|safetensors)|(open_clip_)?pytorch_model\.bin")
_FILE = re.compile(r"\.(bin|pkl|pt|pth|safetensors)$")


@dataclass(frozen=True)
class Proposals:
    """Weights of a proposal network on this machine.

    Attributes:
        path: file or folder.
        revision: the commit that was fetched; empty if they come from elsewhere.
    """

    path: Path
    revision: str = ""


@dataclass(frozen=True)
class Clip:
    """Weights of a CLIP on this machine.

    Attributes:
        config: the CLIP.
        weights: what `load_clip` takes.
        revision: the commit that was fetched; empty if they come from elsewhere.
    """

    config: ClipConfig
    weights: str
    revision: str = ""


@contextmanager
def local_proposals(part: ProposalPart) -> Iterator[Proposals]:
    """Gives the weights of a proposal network while the block runs.

    Raises:
        ValueError: they are not there, or cannot be fetched.
    """
    if part.revision is not None and _is_path(part.source):
        raise ValueError(
            f"revision: got {part.revision!r}, but {part.source} is a path, and only repositories of the hub have "
            "revisions; leave it out, or give the repository"
        )
    with _local_path("proposals", part.source) as path:
        if path is not None:
            yield Proposals(path)
        elif _REPOSITORY.fullmatch(part.source):
            folder = fetch_network(part.source, part.revision or "main")
            yield Proposals(folder, commit_of(folder / "config.json"))
        else:
            raise ValueError(
                f"proposals: {part.source} is neither a path nor a repository of the hub; correct it, e.g. to "
                "facebook/mask2former-swin-tiny-coco-instance"
            )


@contextmanager
def local_clip(part: ClipPart) -> Iterator[Clip]:
    """Gives the weights of a CLIP while the block runs.

    Raises:
        ValueError: they are not there, cannot be fetched, or their model is unknown.
    """
    with _local_path("clip", part.source) as path:
        yield _of_tag(part) if path is None else Clip(_config(path, part), str(_weights(path)))


def check_clip(part: ClipPart) -> None:
    """Checks the name of a CLIP, before anything is fetched.

    Raises:
        ValueError: it is neither a path nor weights that open_clip knows, or another model than the one given.
    """
    if not _is_path(part.source):
        _tag_of(part)


def to_fetch(part: ProposalPart | ClipPart) -> int:
    """Returns about how much of a part is still to be fetched from the hub, 10⁶ bytes."""
    if _is_path(part.source):
        return 0
    if isinstance(part, ProposalPart):
        cached = has_network(part.source, part.revision or "main")
    else:
        model, _, tag = part.source.partition("/")
        cached = has_clip(open_clip.get_pretrained_cfg(model, tag))
    return 0 if cached else part.megabytes


def _of_tag(part: ClipPart) -> Clip:
    known = _tag_of(part)
    model, _, tag = part.source.partition("/")
    return Clip(clip_of_tag(model, tag), tag, commit_of(fetch_clip(known)))


def _tag_of(part: ClipPart) -> dict[str, Any]:
    """Returns what open_clip knows of a tag."""
    model, _, tag = part.source.partition("/")
    if model not in open_clip.list_models():
        hint = nearest(model, open_clip.list_models()) or "correct it, e.g. to ViT-B-32/datacomp_xl_s13b_b90k"
        raise ValueError(f"clip: {part.source} is neither a path nor MODEL/TAG of open_clip; {hint}")
    if part.model not in (None, model):
        raise ValueError(
            f"clip_model: got {part.model!r}, but clip {part.source} is a {model}; leave it out, or give the file of a "
            f"{part.model}"
        )
    known: dict[str, Any] = open_clip.get_pretrained_cfg(model, tag)
    if not known:
        tags = open_clip.list_pretrained_tags_by_model(model)
        hint = f"{near} It has" if (near := nearest(tag, tags)) else "choose from"
        raise ValueError(f"clip: {model} has no weights {tag!r}; {hint} {', '.join(tags)}")
    return known


def _weights(path: Path) -> Path:
    """Returns the weights in a folder as the hub has it; other paths as they are."""
    files = (path / name for name in CLIP_FILES if (path / HUB_CONFIG).is_file())
    return next((file for file in files if file.is_file()), path)


def _config(path: Path, part: ClipPart) -> ClipConfig:
    folder = path if path.is_dir() else path.parent
    if (folder / "clip.safetensors").is_file() and (folder / "config.json").is_file():
        config = clip_of_checkpoint(folder)
        if part.model not in (None, config.model):
            raise ValueError(
                f"clip_model: got {part.model!r}, but {part.source} is a checkpoint, which says what its CLIP is "
                f"({config.model or 'an architecture of its own'}); leave it out"
            )
        return config
    if part.model is not None:
        return ClipConfig(model=part.model)
    if (folder / HUB_CONFIG).is_file():
        return clip_of_hub(folder / HUB_CONFIG)
    raise ValueError(f"clip_model: which model of open_clip is {path}? Give its name, e.g. ViT-B-32")


def _is_path(source: str) -> bool:
    return is_remote(source) or Path(source).exists()


@contextmanager
def _local_path(option: str, source: str) -> Iterator[Path | None]:
    """Gives a path on this machine; None for what is none."""
    if not is_remote(source):
        yield path if (path := Path(source)).exists() else None
        return
    with tempfile.TemporaryDirectory(prefix="openvis-weights-") as folder, bad_input(option):
        if not _FILE.search(source):
            Storage(source).download_folder(".", Path(folder), _OF_A_FOLDER.fullmatch)
            yield Path(folder)
            return
        storage, name = folder_of(source)
        storage.download_folder(".", Path(folder), {name, HUB_CONFIG}.__contains__)
        yield Path(folder, name)
