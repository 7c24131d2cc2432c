import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from openvis_model.weights.checkpoint import load_checkpoint
from openvis_model.weights.folded_model import load
from pipelines.models import load_model
from pipelines.recipes.build import cached_checkpoint, make_checkpoint
from pipelines.recipes.origin import origin_of
from pipelines.recipes.recipe import ProposalPart
from tests import hub
from tests.hub import COMMIT, RECIPE
from tests.networks import TINY_PROPOSALS, tiny_transformers


def said(_: str) -> None:
    pass


def test_a_recipe_is_built_once(offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later it needs neither the hub nor its cache."""
    texts: list[str] = []
    folder = cached_checkpoint("tiny", RECIPE, texts.append)
    assert Path(folder).parent == tmp_path / "cache/openvis/models"
    assert Path(folder).name.startswith("tiny-")
    assert texts[0].startswith("building tiny once")
    assert origin_of(folder)["revisions"] == {"proposals": COMMIT, "clip": COMMIT}
    assert load(folder).short_side == 64
    hub.use(monkeypatch, tmp_path / "empty", None)
    assert cached_checkpoint("tiny", RECIPE, texts.append) == folder
    assert len(texts) == 1
    assert cached_checkpoint("tiny", replace(RECIPE, label={}), texts.append) == folder  # the weights are the same
    with pytest.raises(ValueError, match="config.json cannot be fetched"):
        cached_checkpoint("tiny", replace(RECIPE, short_side=96), texts.append)  # another model


@pytest.mark.parametrize("network", TINY_PROPOSALS)
def test_each_network_is_put_together_from_the_hub(network: str, offline: Path, tmp_path: Path) -> None:
    published = tmp_path / "published"
    tiny_transformers(network).save_pretrained(published)
    (published / "preprocessor_config.json").write_text('{"image_mean": [0.4, 0.5, 0.6]}')
    hub.write_cache(offline, {"some/network": {file.name: file.read_bytes() for file in published.iterdir()}})
    recipe = replace(RECIPE, proposals=ProposalPart(source="some/network"))
    folder = cached_checkpoint(network, recipe, said)
    assert load_checkpoint(folder).config.mask_proposal.pixel_mean == (0.4, 0.5, 0.6)
    frames = torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8)
    assert len(load(folder)(frames)) == 2


def test_what_a_crash_left_is_built_again(offline: Path) -> None:
    folder = Path(cached_checkpoint("tiny", RECIPE, said))
    fingerprint = json.loads((folder / "config.json").read_text())["fingerprint"]
    dead, others = folder.with_name(f".{folder.name}-{'0' * 32}"), folder.with_name(f".tiny-2-{folder.name[5:]}")
    for each in (dead, others):
        each.mkdir()
    weights = folder / "clip.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert cached_checkpoint("tiny", RECIPE, said) == str(folder)
    assert load(folder).fingerprint == fingerprint
    assert (dead.exists(), others.exists()) == (False, True)


LATER = f"""
import sys
from pipelines.recipes.build import cached_checkpoint
from pipelines.recipes.recipe import ClipPart, ProposalPart, Recipe
print(cached_checkpoint("tiny", {RECIPE}, print), sorted({{"open_clip", "peft", "transformers"}} & set(sys.modules)))
"""


def test_a_model_that_is_built_needs_no_heavy_library(offline: Path) -> None:
    folder = cached_checkpoint("tiny", RECIPE, said)
    later = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True, check=True)
    assert later.stdout == f"{folder} []\n"


BUILD = """
import sys
from pathlib import Path
import pytest
from pipelines.recipes.build import cached_checkpoint
from tests import hub
patch = pytest.MonkeyPatch()
hub.make_clip_small(patch)
hub.use(patch, Path(sys.argv[1]), None)
print("ready", flush=True)
sys.stdin.readline()
print(cached_checkpoint("tiny", hub.RECIPE, print), flush=True)
"""


def start(cache: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, cache], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.nightly
def test_two_processes_build_it_once(offline: Path, tmp_path: Path) -> None:
    processes = [start(offline) for _ in range(2)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    printed = [process.communicate("\n")[0] for process in processes]
    folders = [text.splitlines()[-1] for text in printed]
    assert folders[0] == folders[1]
    assert sum("building tiny once" in text for text in printed) == 1
    assert [path.name for path in (tmp_path / "cache/openvis/models").iterdir() if path.is_dir()] == [
        Path(folders[0]).name
    ]


def test_a_full_disk_and_one_without_rights_are_named(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = replace(RECIPE, clip=replace(RECIPE.clip, megabytes=10**12))
    with pytest.raises(
        ValueError, match=r"cannot write to .*models \(\d+ MB are free, 10+ are needed\); .*XDG_CACHE_HOME"
    ):
        cached_checkpoint("tiny", huge, said)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("openvis_model.weights.checkpoint.serialize", full)
    with pytest.raises(ValueError, match="cannot write to .*models \\(No space left on device\\)"):
        cached_checkpoint("tiny", RECIPE, said)
    assert not [path for path in (tmp_path / "cache/openvis/models").iterdir() if path.is_dir()]
    monkeypatch.setenv("XDG_CACHE_HOME", __file__)
    with pytest.raises(ValueError, match="cannot write to .*test_build.py/openvis/models"):
        cached_checkpoint("tiny", RECIPE, said)


def test_the_download_and_the_checkpoint_need_space(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(
        RECIPE, proposals=replace(RECIPE.proposals, megabytes=100), clip=replace(RECIPE.clip, megabytes=100)
    )
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=350e6))
    empty = offline.with_name("empty")
    hub.use(monkeypatch, empty, None)
    with pytest.raises(ValueError, match="350 MB are free, 400 are needed, 200 of them for the download"):
        cached_checkpoint("tiny", recipe, said)
    hub.use(monkeypatch, offline, None)
    cached_checkpoint("tiny", recipe, said)  # what is fetched already needs no more space


def test_a_full_disk_of_the_hubs_cache_is_named(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPE, clip=replace(RECIPE.clip, megabytes=100))
    other = Path("/proc")  # another disk
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=50e6 if path == other else 150e6))
    hub.use(monkeypatch, other / "no-such-cache", None)
    with pytest.raises(ValueError, match=r"cannot download to /proc \(50 MB are free, 100 .* HF_HUB_CACHE"):
        cached_checkpoint("tiny", recipe, said)


def test_offline_all_that_is_missing_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hub.use(monkeypatch, tmp_path / "empty", None)
    misspelt = replace(RECIPE, clip=replace(RECIPE.clip, source="ViT-B-32/openia"))
    with pytest.raises(ValueError, match="clip: ViT-B-32 has no weights 'openia'"):  # before anything is fetched
        cached_checkpoint("tiny", misspelt, said)
    with pytest.raises(ValueError, match="cannot be fetched") as error:
        cached_checkpoint("tiny", RECIPE, said)
    assert f"hf download {hub.PROPOSALS}`" in str(error.value)
    assert f"hf download {hub.CLIP} open_clip_model.safetensors`" in str(error.value)


def test_a_checkpoint_is_made_anywhere(offline: Path, bucket: str, tmp_path: Path) -> None:
    make_checkpoint(RECIPE, str(tmp_path / "made"))
    make_checkpoint(RECIPE, f"{bucket}/made")
    fingerprint = load_model(str(tmp_path / "made")).fingerprint
    assert load_model(f"{bucket}/made").fingerprint == fingerprint
    assert load_checkpoint(tmp_path / "made").config.clip.model == "ViT-B-32"
    for output in (str(tmp_path / "made"), f"{bucket}/made"):
        with pytest.raises(ValueError, match="output: .* already; choose another folder or remove it"):
            make_checkpoint(RECIPE, output)
