"""Fetches published weights through huggingface_hub and open_clip, into their usual caches.

Their settings hold: HF_HUB_OFFLINE, HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, and the usual ones of proxies.
"""

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from safetensors import safe_open

NETWORK_FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in a folder of transformers; the first that a repository has is fetched."""

PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Files of such a folder that say how pictures are prepared."""

CLIP_FILES = (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
"""Names of the weights in a repository of open_clip; the first that it has is fetched."""


class NotHereError(ValueError):
    """Says which file is not in the hub's cache while no network leads to the hub, and how to bring it."""


def fetch_network(repo: str, revision: str) -> Path:
    """Fetches config, preprocessing and weights of one of transformers' networks; returns their folder in the cache.

    Args:
        repo: name on the hub, such as `facebook/mask2former-swin-tiny-coco-instance`.
        revision: commit, branch or tag.

    Raises:
        ValueError: names the file that cannot be fetched, the reason and the remedy.
    """
    config = fetch(repo, ("config.json",), revision)
    commit = config.parent.name  # the same for all files, whatever happens to a branch
    fetch(repo, PROCESSORS, commit)
    return fetch(repo, NETWORK_FILES, commit).parent


def has_network(repo: str, revision: str) -> bool:
    """Returns whether the weights of one of transformers' networks are in the cache."""
    return _cached(repo, NETWORK_FILES, revision)


def fetch_clip(tag: Mapping[str, Any]) -> Path:
    """Fetches the weights that open_clip knows under a tag; returns the file.

    Raises:
        ValueError: names the file that cannot be fetched, the reason and the remedy.
    """
    repo, names = _clip_files(tag)
    if repo:
        return fetch(repo, names, "main")
    try:
        return Path(open_clip.download_pretrained(dict(tag)))
    except Exception as error:  # whatever the network, the disk or a checksum raises
        raise ValueError(
            f"{tag.get('url')}: cannot be fetched ({error}); fetch it by other means and give the file"
        ) from error


def has_clip(tag: Mapping[str, Any]) -> bool:
    """Returns whether the weights that open_clip knows under a tag are in the cache."""
    repo, names = _clip_files(tag)
    return bool(repo) and _cached(repo, names, "main")


def _clip_files(tag: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """Returns the repository of a tag, empty if the hub does not have it, and the names that its weights may have."""
    repo, _, name = str(tag.get("hf_hub", "")).rpartition("/")
    stem, _, suffix = name.rpartition(".")
    names = (f"{stem}.safetensors", name) if suffix in ("bin", "pth") else (name,)
    return repo, names if name else CLIP_FILES


def _cached(repo: str, names: Sequence[str], revision: str) -> bool:
    return any(isinstance(try_to_load_from_cache(repo, name, revision=revision), str) for name in names)


def cache_folder() -> Path:
    """Returns the hub's cache, or the nearest folder above it that exists."""
    cache = Path(constants.HF_HUB_CACHE).absolute()
    return next(folder for folder in (cache, *cache.parents) if folder.exists())


def commit_of(file: Path) -> str:
    """Returns the commit that a file of the hub's cache belongs to; nothing for another file."""
    return file.parent.name if file.parent.parent.name == "snapshots" else ""


def fetch(repo: str, names: Sequence[str], revision: str) -> Path:
    """Fetches the first file that a repository of the hub has.

    Raises:
        NotHereError: it is not in the cache, and there is no network.
        ValueError: names the file that cannot be fetched, the reason and the remedy.
    """
    missing: Exception | None = None
    for name in names:
        try:
            return _whole(Path(hf_hub_download(repo, name, revision=revision)))
        except _CutOffError as error:
            raise ValueError(f"{repo}: {error}") from error
        except (RemoteEntryNotFoundError, LocalEntryNotFoundError) as error:
            missing = missing or error
        except Exception as error:  # of the hub, the network, the disk
            raise ValueError(f"{repo}: {name} cannot be fetched: {_reason(repo, name, revision, error)}") from error
    assert missing is not None
    kind = NotHereError if isinstance(missing, LocalEntryNotFoundError) else ValueError
    raise kind(f"{repo}: {names[0]} cannot be fetched: {_reason(repo, names[0], revision, missing)}") from missing


class _CutOffError(Exception):
    """Says which file of the cache is not whole."""


def _whole(file: Path) -> Path:
    """Returns a file unless its header says that it was longer, as when a copy of the cache broke off."""
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt"):
                pass
        except Exception as error:
            content = file.resolve()  # the name is a link; without its content, it is fetched again
            raise _CutOffError(f"{file.name} is cut off ({error}); remove {content} and run it again") from error
    return file


def _reason(repo: str, name: str, revision: str, error: Exception) -> str:
    page = f"{constants.ENDPOINT}/{repo}"
    match error:
        case GatedRepoError():
            return f"its owner asks for consent; give it at {page}, then set HF_TOKEN or run `hf auth login`"
        case RepositoryNotFoundError():
            return f"{page} does not exist or is private; correct the name, or set HF_TOKEN"
        case RevisionNotFoundError():
            return f"{page} has no revision {revision!r}; give one that it has"
        case RemoteEntryNotFoundError():
            return f"{page} has no such file at revision {revision!r}; give a repository with these weights"
        case LocalEntryNotFoundError():
            return _not_here(repo, name, revision, error)
        case OSError(errno=errno.ENOSPC):
            return f"no space is left in {constants.HF_HUB_CACHE}; free some, or set HF_HUB_CACHE to another disk"
    return f"{error}; check network, proxy, HF_ENDPOINT and HF_HUB_CACHE ({constants.HF_HUB_CACHE})"


def _not_here(repo: str, name: str, revision: str, error: Exception) -> str:
    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"))
    if constants.is_offline_mode():
        why = "HF_HUB_OFFLINE is set; unset it"
    else:
        why = f"the network does not lead to {constants.ENDPOINT} ({error.__cause__ or error}); run it again with one"
    # A repository of a CLIP may hold its weights in several forms; of a network, all files are needed.
    file = "" if name in ("config.json", *PROCESSORS, *NETWORK_FILES) else f" {name}"
    at = "" if revision == "main" else f" --revision {revision}"
    half = " (a download of it was broken off)" if any(folder.glob("blobs/*.incomplete")) else ""
    return (
        f"it is not in {folder}{half}, and {why}, or run `hf download {repo}{file}{at}` on a machine with a network "
        "and copy that folder of its cache here, or give local files to jobs.make_checkpoint"
    )
