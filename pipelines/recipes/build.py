"""Builds checkpoints of recipes: once in a cache folder, or anywhere."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from pipelines.recipes.origin import origin_of
from pipelines.recipes.recipe import Recipe
from pipelines.storage.files import Storage, bad_input
from pipelines.storage.objects import is_remote

if TYPE_CHECKING:
    from pipelines.recipes.sources import Clip, Proposals

Say = Callable[[str], None]

_REFUSALS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EEXIST, errno.ENOENT),
)
"""Errors of a disk that its user can mend: no space, no right, a file where a folder should be."""


def cached_checkpoint(name: str, recipe: Recipe, say: Say) -> str:
    """Returns the checkpoint folder of a recipe, and builds it first if it is not there; then it needs no network.

    The folder is `~/.cache/openvis/models/NAME-HASH`, below XDG_CACHE_HOME if that is set. The hash is that of the
    recipe and of the commits that were fetched. Processes that need the same model build it once.

    Args:
        name: name of the recipe.
        recipe: the recipe.
        say: called with what is being done.

    Raises:
        ValueError: a part cannot be fetched or used, or the folder cannot be written.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "openvis/models").absolute()
    with _writable(home, "XDG_CACHE_HOME"), _locked(home, name, say):
        hashed = rf"{re.escape(name)}-[0-9a-f]{{12}}"
        for folder in sorted(home.iterdir()):
            if re.fullmatch(rf"\.{hashed}-[0-9a-f]{{32}}", folder.name):
                shutil.rmtree(folder)  # of a process that died
            elif re.fullmatch(hashed, folder.name) and origin_of(str(folder)).get("built_from") == recipe.identity():
                if _is_whole(folder):
                    return str(folder)
                shutil.rmtree(folder)
        _check_space(home, recipe)
        say(f"building {name} once; with the weights to fetch: {recipe.megabytes} MB")
        return str(_build(recipe, lambda hashed: home / f"{name}-{hashed[:12]}"))


def make_checkpoint(recipe: Recipe, output: str) -> None:
    """Builds the checkpoint of a recipe in a folder that does not exist yet.

    Args:
        recipe: the recipe.
        output: the folder, local or in the cloud.

    Raises:
        ValueError: a part cannot be fetched or used, or the folder exists or cannot be written.
    """
    if not is_remote(output):
        folder = Path(output)
        if folder.exists():
            raise ValueError(f"output: {output} exists already; choose another folder or remove it")
        with _writable(folder.absolute().parent, "--output"):
            _check_space(folder.absolute().parent, recipe)
            _build(recipe, lambda _: folder)
        return
    storage = Storage(output)
    with bad_input("output"):
        if storage.exists("config.json"):
            raise ValueError(f"output: {output} holds a checkpoint already; choose another folder or remove it")
    storage.check_writable()
    with tempfile.TemporaryDirectory(prefix="openvis-checkpoint-") as drafts, _writable(Path(drafts), "TMPDIR"):
        _check_space(Path(drafts), recipe)
        folder = _build(recipe, lambda _: Path(drafts, "model"))
        with bad_input("output"):
            # The config last: without one it is no checkpoint.
            for file in sorted(folder.rglob("*"), key=lambda file: file.name == "config.json"):
                if file.is_file():
                    storage.put(file, file.relative_to(folder).as_posix())


def _build(recipe: Recipe, folder_of: Callable[[str], Path]) -> Path:
    """Builds a checkpoint folder, which `folder_of` names by the hash of what it is built from."""
    # Here, because they import transformers and open_clip, which a model that is built already does not need.
    from openvis_model.weights.assembly import assemble
    from openvis_model.weights.checkpoint import save_checkpoint

    with _parts(recipe) as (proposals, clip):
        model = assemble(
            proposals.path,
            clip.config,
            clip.weights,
            short_side=recipe.short_side,
            quick_gelu=recipe.clip.quick_gelu,
        )
        revisions = {"proposals": proposals.revision, "clip": clip.revision}
    built_from = json.dumps([recipe.identity(), revisions], sort_keys=True)
    folder = folder_of(hashlib.sha256(built_from.encode()).hexdigest())
    origin = {"recipe": asdict(recipe), "built_from": recipe.identity(), "revisions": revisions, "fine_tuned": False}
    save_checkpoint(model, folder, origin=origin)
    return folder


@contextmanager
def _parts(recipe: Recipe) -> Iterator[tuple["Proposals", "Clip"]]:
    """Gives the weights of both parts while the block runs.

    Raises:
        ValueError: a part cannot be fetched or used; without a network, names all that is missing.
    """
    from openvis_model.weights.hub import NotHereError
    from pipelines.recipes.sources import check_clip, local_clip, local_proposals

    check_clip(recipe.clip)
    with ExitStack() as stack:
        try:
            proposals = stack.enter_context(local_proposals(recipe.proposals))
        except NotHereError as missing:
            try:
                stack.enter_context(local_clip(recipe.clip))
            except NotHereError as also:
                raise ValueError(f"{missing}; and {also}") from missing
            raise
        yield proposals, stack.enter_context(local_clip(recipe.clip))


def _is_whole(folder: Path) -> bool:
    """Returns whether no file of a checkpoint was cut off, as by a crash of the machine."""
    try:
        for file in folder.rglob("*.safetensors"):
            with safe_open(file, framework="pt"):
                pass
    except Exception:
        return False
    return True


@contextmanager
def _locked(home: Path, name: str, say: Say) -> Iterator[None]:
    """Holds the lock on a recipe, which the system frees when a process dies."""
    with (home / f".{name}.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is building {name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_space(home: Path, recipe: Recipe) -> None:
    """Checks that the checkpoint, and what is still to be fetched for it, have space on their disks."""
    from openvis_model.weights.hub import cache_folder
    from pipelines.recipes.sources import to_fetch

    cache, fetched = cache_folder(), sum(to_fetch(part) for part in recipe.parts().values())
    one_disk = cache.stat().st_dev == home.stat().st_dev
    if not one_disk and (free := shutil.disk_usage(cache).free) < fetched * 1e6:
        raise ValueError(
            f"checkpoint: cannot download to {cache} ({free / 1e6:.0f} MB are free, {fetched} are needed); free some, "
            "or choose another disk with HF_HUB_CACHE"
        )
    free, needed = shutil.disk_usage(home).free, recipe.megabytes + (fetched if one_disk else 0)
    if free < needed * 1e6:
        shares = f", {fetched} of them for the download" if one_disk and fetched else ""
        raise OSError(errno.ENOSPC, f"{free / 1e6:.0f} MB are free, {needed} are needed{shares}", str(home))


@contextmanager
def _writable(folder: Path, setting: str) -> Iterator[None]:
    """Creates a folder, and turns what the disk refuses into a ValueError that names what to set instead."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        raise ValueError(
            f"checkpoint: cannot write to {folder} ({error.strerror}); mend that, or choose another disk with {setting}"
        ) from error
