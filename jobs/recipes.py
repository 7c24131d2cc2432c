"""`--model NAME`: models put together from published weights, as `jobs/models/NAME.yaml` says."""

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from jobs.options import read_config
from pipelines.archive.config import RelabelConfig, SearchConfig
from pipelines.benchmark.config import BenchmarkConfig
from pipelines.following.config import TrackConfig
from pipelines.labelling.config import LabelConfig
from pipelines.recipes.origin import origin_of
from pipelines.recipes.recipe import Licences, Recipe, check_licences
from pipelines.review.config import ReviewConfig

_FOLDER = Path(__file__).with_name("models")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Another way to choose a model than its checkpoint.

    Attributes:
        model: name of a recipe (`python -m jobs.make_checkpoint --list`): published weights, which are fetched and put
            together at first use; instead of a checkpoint.
        licence: licences that the weights may have: `any`, or `permissive` ones, which allow commercial use.
    """

    model: str | None = None
    licence: Licences = "any"


@dataclass(frozen=True, kw_only=True)
class LabelOptions(LabelConfig, ModelOptions):
    """Options of `jobs.label`."""


@dataclass(frozen=True, kw_only=True)
class TrackOptions(TrackConfig, ModelOptions):
    """Options of `jobs.track`."""


@dataclass(frozen=True, kw_only=True)
class RelabelOptions(RelabelConfig, ModelOptions):
    """Options of `jobs.relabel`."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions(SearchConfig, ModelOptions):
    """Options of `jobs.search`."""


@dataclass(frozen=True, kw_only=True)
class ReviewOptions(ReviewConfig, ModelOptions):
    """Options of `jobs.review`."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(BenchmarkConfig, ModelOptions):
    """Options of `jobs.benchmark`."""


Options = TypeVar("Options", LabelOptions, TrackOptions, RelabelOptions, SearchOptions, ReviewOptions, BenchmarkOptions)


def recipe_names() -> list[str]:
    """Returns the names of all recipes."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))


def read_recipe(name: str) -> Recipe:
    """Reads a recipe.

    Raises:
        ValueError: there is none of this name; names the nearest.
    """
    if name not in (names := recipe_names()):
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names)}"
        raise ValueError(f"model: there is no recipe {name!r}; {hint}")
    return read_config("make_checkpoint", "", Recipe, ["--config", str(_FOLDER / f"{name}.yaml")])


def recipe_options(given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Returns the options of labelling that suit the given model, and the file that they are from."""
    if given.get("model") is not None:
        name = str(given["model"])
        return str(_FOLDER / f"{name}.yaml"), read_recipe(name).label
    checkpoint = given.get("checkpoint")
    origin = origin_of(checkpoint and str(checkpoint))
    return f"{checkpoint}/config.json", origin["recipe"]["label"] if origin else {}


def with_checkpoint(options: Options) -> Options:
    """Returns options with the checkpoint of their model, which is built first if need be, and prints its licences.

    Raises:
        ValueError: the recipe is unknown, a licence is excluded, weights cannot be fetched or used, or a checkpoint is
            given too.
    """
    if options.model is None:
        if options.checkpoint is not None and options.licence == "permissive":
            origin = origin_of(options.checkpoint)
            if not origin:
                raise ValueError(f"licence: {options.checkpoint} does not say the licences of its weights")
            check_licences(_recipe_of(origin), options.licence)
        return options
    if options.checkpoint is not None:
        raise ValueError(f"model, checkpoint: both are given ({options.model}, {options.checkpoint}); leave one out")
    recipe = read_recipe(options.model)
    check_licences(recipe, options.licence)
    from pipelines.recipes.build import cached_checkpoint

    checkpoint = cached_checkpoint(options.model, recipe, lambda text: print(text, file=sys.stderr))
    print(origin_line(checkpoint), file=sys.stderr)
    return replace(options, checkpoint=checkpoint)


def origin_line(checkpoint: str) -> str:
    """Returns in a line what a checkpoint is put together from, and under which licences."""
    origin = origin_of(checkpoint)
    parts = []
    for name, part in _recipe_of(origin).parts().items():
        revision = origin["revisions"][name][:12]
        parts.append(f"{name} {part.source}{revision and f' at {revision}'}, licence {part.licence}")
    return f"{checkpoint}: {'; '.join(parts)}. No fine-tuning has been done."


def _recipe_of(origin: Mapping[str, Any]) -> Recipe:
    from pydantic import TypeAdapter

    return TypeAdapter(Recipe).validate_python(origin["recipe"])
