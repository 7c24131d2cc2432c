import tomllib
from pathlib import Path

import open_clip
import pytest
from pydantic import TypeAdapter

from jobs import recipes
from jobs.recipes import BenchmarkOptions, origin_line, read_recipe, recipe_names, recipe_options, with_checkpoint
from openvis_model.clip import ClipConfig
from openvis_model.weights.clip_origin import origin_of_tag
from pipelines.labelling.config import LabelConfig
from pipelines.recipes.build import make_checkpoint
from tests.hub import RECIPE

LABEL = {"input": "a", "output": "b", "vocabulary": "c"}
TINY = "mask2former-swin-tiny"


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_can_be_fetched_and_labels_without_training(name: str) -> None:
    recipe = read_recipe(name)
    model, _, tag = recipe.clip.source.partition("/")
    known = open_clip.get_pretrained_cfg(model, tag)
    assert known["hf_hub"]
    origin_of_tag(known).check(ClipConfig(model=model), tag)
    assert {"unknown", ""}.isdisjoint(part.licence for part in recipe.parts().values())
    assert all(part.megabytes > 100 for part in recipe.parts().values())
    config = TypeAdapter(LabelConfig).validate_python({**LABEL, **recipe.label}, extra="forbid")
    assert config.tracker.association.kind == "hungarian"


def test_recipes_are_packaged() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    (pattern,) = project["tool"]["setuptools"]["package-data"]["jobs"]
    assert {file.stem for file in (root / "jobs").glob(pattern)} == set(recipe_names())


def test_an_unknown_recipe_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"^model: there is no recipe 'mask2former-swin-tny'; did you mean .*-tiny\?"):
        read_recipe("mask2former-swin-tny")
    with pytest.raises(ValueError, match="choose from eomt-large, mask2former-swin-base, "):
        read_recipe("../models/x")


def test_a_checkpoint_beside_a_model_is_refused() -> None:
    with pytest.raises(ValueError, match=f"model, checkpoint: both are given \\({TINY}, mine\\); leave one out"):
        with_checkpoint(BenchmarkOptions(model=TINY, checkpoint="mine"))
    assert with_checkpoint(BenchmarkOptions(checkpoint="mine")) == BenchmarkOptions(checkpoint="mine")


def test_excluded_licences_are_refused_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.recipes.build.cached_checkpoint", lambda *_: pytest.fail("fetched"))
    with pytest.raises(ValueError, match="licence of proposals .* is CC-BY-NC-4.0"):
        with_checkpoint(BenchmarkOptions(model=TINY, licence="permissive"))


def test_a_checkpoint_remembers_what_it_is_made_of(offline: Path, tmp_path: Path) -> None:
    """Its licences, and the options that suit it."""
    made = str(tmp_path / "made")
    make_checkpoint(RECIPE, made)
    assert "at 0123456789ab, licence CC-BY-NC-4.0; clip ViT-B-32/datacomp_xl_s13b_b90k at" in origin_line(made)
    file, options = recipe_options({"checkpoint": made})
    assert (file, options) == (f"{made}/config.json", RECIPE.label)
    assert recipe_options({"model": TINY}) == (str(recipes._FOLDER / f"{TINY}.yaml"), read_recipe(TINY).label)
    assert recipe_options({})[1] == {}
    with pytest.raises(ValueError, match="licence of proposals"):
        with_checkpoint(BenchmarkOptions(checkpoint=made, licence="permissive"))
