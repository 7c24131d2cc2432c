"""Scores predictions against a ground truth, by the official rules of a benchmark and by strict ones.

The official numbers are those that the benchmark's own evaluator gives, with whatever it silently accepts. The strict
ones are what one would want: a track id of 0 is an id like others, and what does not fit together is an error. Of
Shapes, which is our own, there are strict ones only.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

from openvis_model import __version__
from pipelines.datasets import burst_files, ytvis
from pipelines.datasets.annotations import GroundTruth, PredictedTrack
from pipelines.evaluation.config import Protocol
from pipelines.metrics.burst import class_guided, exemplar_guided, open_world
from pipelines.metrics.burst_errors import burst_error_costs
from pipelines.metrics.errors import error_costs
from pipelines.metrics.intervals import confidence_intervals
from pipelines.metrics.open_vocabulary import open_vocabulary
from pipelines.metrics.track_matching import SHAPES
from pipelines.metrics.video_ap import LVVIS, UVO, YTVIS, ApRules, video_ap
from pipelines.storage.files import folder_of


@dataclass(frozen=True, kw_only=True)
class Score:
    """What an evaluation found.

    Attributes:
        protocol: whose rules.
        numbers: by the official rules, flat names; fractions, but percent in BURST's table; -1 where nothing was
            averaged.
        strict: by strict rules; None if these refuse the files.
        refusal: why they refuse them.
        warnings: what the official rules silently accept, and how often it was met.
        errors: AP50 that is lost to each kind of error, a fraction; of BURST that of its tracks.
        about: sha256 of both files, version of this package, and what else the numbers depend on.
        seconds: that it took.
    """

    protocol: Protocol
    numbers: Mapping[str, float]
    strict: Mapping[str, float] | None
    refusal: str | None
    warnings: Mapping[str, int]
    errors: Mapping[str, float]
    about: Mapping[str, str]
    seconds: float

    def differing(self) -> dict[str, tuple[float, float]]:
        """Numbers that the two kinds of rules disagree about: official and strict."""
        strict = self.strict or {}
        return {name: (value, strict[name]) for name, value in self.numbers.items() if strict.get(name, value) != value}

    def write(self, path: str) -> None:
        """Writes a JSON file: the official numbers under their names, and everything else under `score`.

        Raises:
            ValueError: the file cannot be written.
        """
        about = {name: value for name, value in vars(self).items() if name not in ("numbers", "strict")}
        about["strict"] = {name: strict for name, (_, strict) in self.differing().items()}
        storage, name = folder_of(path)
        try:
            with storage.write(name) as file:
                file.write(json.dumps({**self.numbers, "score": about}, indent=1).encode())
        except OSError as error:
            raise ValueError(f"output: cannot write {path} ({error.strerror}); choose another path") from error


@dataclass(frozen=True, kw_only=True)
class _Result:
    """Numbers by one kind of rules."""

    numbers: dict[str, float]
    errors: dict[str, float]
    warnings: dict[str, int]
    sha256: dict[str, str]


def score(protocol: Protocol, ground_truth: str, predictions: str, *, threads: int = 1) -> Score:
    """Scores a file of predictions.

    Args:
        protocol: `ytvis` (YouTube-VIS 2019 and 2021, OVIS), `lvvis` (with base and novel categories), `uvo`
            (class-agnostic; of a ground truth with several categories also `with_categories/...`), `burst`, `shapes`
            (`open_vocabulary`, and the ends of 95 % intervals as `low/NAME` and `high/NAME`; files are read strictly).
        ground_truth: the file. For BURST `all_classes.json`; `common_classes.json` and `uncommon_classes.json` beside
            it are read for the open world.
        predictions: the file, in the benchmark's format for submissions.
        threads: to work in; the numbers do not depend on it. BURST's are computed in one, about as fast as in several.

    Raises:
        ValueError: for files that even the official rules cannot take: names file, entry, value and remedy.
    """
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol: unknown value {protocol!r}; choose one of {', '.join(get_args(Protocol))}")
    start = time.monotonic()
    own: dict[str, Callable[..., _Result]] = {"burst": _burst, "shapes": partial(_shapes, threads)}
    evaluate = own.get(protocol, partial(_tracks, protocol, threads))
    official = evaluate(ground_truth, predictions, strict=False)
    strict, refusal = _strict(evaluate, official, ground_truth, predictions)
    return Score(
        protocol=protocol,
        numbers=official.numbers,
        strict=strict,
        refusal=refusal,
        warnings=official.warnings,
        errors=official.errors,
        about=official.sha256 | {"openvis": __version__},
        seconds=time.monotonic() - start,
    )


def score_tracks(
    protocol: Protocol, ground_truth: GroundTruth, tracks: list[PredictedTrack], *, threads: int = 1
) -> tuple[dict[str, float], dict[str, float]]:
    """The official numbers of tracks in memory, and what AP50 is lost to."""
    rules = _rules(protocol, ground_truth, strict=protocol == "shapes")
    if protocol == "shapes":
        numbers = open_vocabulary(ground_truth, tracks, threads=threads)
        for name, (low, high) in confidence_intervals(ground_truth, tracks, threads=threads).items():
            numbers |= {f"low/{name}": low, f"high/{name}": high}
    else:
        numbers = video_ap(ground_truth, tracks, rules, threads=threads)
    return numbers, error_costs(ground_truth, tracks, rules, threads=threads)


def _strict(
    evaluate: Callable[..., _Result], official: _Result, *files: str
) -> tuple[Mapping[str, float] | None, str | None]:
    """Without anything odd in the files, both kinds of rules are the same."""
    if not official.warnings:
        return official.numbers, None
    try:
        return evaluate(*files, strict=True).numbers, None
    except ValueError as error:
        return None, str(error)


def _tracks(protocol: Protocol, threads: int, ground_truth: str, predictions: str, *, strict: bool) -> _Result:
    truth = ytvis.read_ground_truth(ground_truth, strict=strict)
    rules = _rules(protocol, truth, strict=strict)
    categories = rules.forced_category is None
    predicted = ytvis.read_predictions(predictions, truth, strict=strict, categories=categories)
    numbers = video_ap(truth, predicted.tracks, rules, threads=threads)
    if protocol == "uvo" and len(truth.categories) > 1:
        named = video_ap(truth, predicted.tracks, ApRules(strict=strict), threads=threads)
        numbers |= {f"with_categories/{name}": value for name, value in named.items()}
    return _Result(
        numbers=numbers,
        errors=error_costs(truth, predicted.tracks, rules, threads=threads),
        warnings={**truth.warnings, **predicted.warnings},
        sha256={"ground_truth_sha256": truth.sha256, "predictions_sha256": predicted.sha256},
    )


def _shapes(threads: int, ground_truth: str, predictions: str, *, strict: bool) -> _Result:
    """Strict in any case: there is no official tool whose leniency had to be copied."""
    truth = ytvis.read_ground_truth(ground_truth, strict=True)
    predicted = ytvis.read_predictions(predictions, truth, strict=True)
    numbers, errors = score_tracks("shapes", truth, list(predicted.tracks), threads=threads)
    return _Result(
        numbers=numbers,
        errors=errors,
        warnings={},
        sha256={"ground_truth_sha256": truth.sha256, "predictions_sha256": predicted.sha256},
    )


def _burst(ground_truth: str, predictions: str, *, strict: bool) -> _Result:
    truth = burst_files.read_ground_truth(ground_truth, strict=strict)
    predicted = burst_files.read_predictions(predictions, truth, strict=strict)
    parts = {
        split: burst_files.read_ground_truth(str(path), strict=strict)
        for split in ("common", "uncommon")
        if (path := Path(ground_truth).with_name(f"{split}_classes.json")).exists()
    }
    numbers = {
        **class_guided(truth, predicted, strict=strict),
        **exemplar_guided(truth, predicted, strict=strict),
        **open_world(truth, predicted, **parts),
    }
    sha256 = {"ground_truth_sha256": truth.sha256, "predictions_sha256": predicted.sha256}
    return _Result(
        numbers=numbers,
        errors=burst_error_costs(truth, predicted),
        warnings={**truth.warnings, **predicted.warnings},
        sha256=sha256 | {f"{split}_sha256": part.sha256 for split, part in parts.items()},
    )


def _rules(protocol: Protocol, ground_truth: GroundTruth, *, strict: bool) -> ApRules:
    """UVO's evaluator gives all predictions the one category there is; of several, it is told to ignore them."""
    rules = {"ytvis": YTVIS, "lvvis": LVVIS, "uvo": UVO, "shapes": SHAPES}[protocol]
    ids = {category.id for category in ground_truth.categories}
    forced = rules.forced_category if rules.forced_category is None or ids == {rules.forced_category} else None
    return replace(rules, forced_category=forced, strict=strict)
