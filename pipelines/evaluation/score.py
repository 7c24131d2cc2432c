"""Scores predictions against a ground truth, by the official rules of a benchmark and by strict ones.

The official numbers are those of the benchmark's own evaluator, with all that it silently accepts. By strict rules, a
track id of 0 is an id like any other, and files that do not fit together are an error. Shapes, which is our own, has
strict rules only.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openvis_model import __version__
from pipelines.datasets.annotations import GroundTruth, PredictedTrack
from pipelines.evaluation.benchmark import Benchmark, Evaluation, TrackBenchmark
from pipelines.evaluation.benchmarks import BENCHMARKS, Protocol
from pipelines.storage.files import folder_of


@dataclass(frozen=True, kw_only=True)
class Score:
    """Scores of a file of predictions.

    Attributes:
        protocol: benchmark whose rules apply.
        numbers: numbers by official rules, with flat names; fractions, but percent in BURST's table; -1 for the mean of
            nothing.
        strict: numbers by strict rules; None if these refuse the files.
        refusal: why strict rules refuse the files.
        warnings: oddities that the official rules silently accept, and how often each occurs.
        errors: AP50 lost to each kind of error, a fraction; for BURST the AP50 of its tracks.
        about: sha256 of both files, version of this package, and whatever else the numbers depend on.
        seconds: duration of the evaluation.
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
        """Returns the official and the strict number wherever they differ."""
        strict = self.strict or {}
        return {name: (value, strict[name]) for name, value in self.numbers.items() if strict.get(name, value) != value}

    def notes(self) -> list[str]:
        """Returns a line for each oddity of the files, and for each number that strict rules change."""
        lines = [f"{times} × {warning}" for warning, times in self.warnings.items()]
        if self.refusal:
            lines.append(f"strict rules refuse the files: {self.refusal}")
        differing = {name: pair for name, pair in self.differing().items() if "/cat/" not in name}
        lines += [
            f"by strict rules {name} is {strict:.6f}, not {number:.6f}" for name, (number, strict) in differing.items()
        ]
        return lines

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


def score(protocol: Protocol, ground_truth: str, predictions: str, *, threads: int = 1) -> Score:
    """Scores a file of predictions.

    Args:
        protocol: `ytvis` (YouTube-VIS 2019 and 2021, OVIS), `lvvis` (with base and novel categories), `uvo`
            (class-agnostic; of a ground truth with several categories also `with_categories/...`), `burst`, `shapes`
            (`open_vocabulary`, and the ends of 95 % intervals as `low/NAME` and `high/NAME`; files are read strictly).
        ground_truth: the file. For BURST `all_classes.json`; `common_classes.json` and `uncommon_classes.json` beside
            it are read for the open world.
        predictions: the file, in the benchmark's format for submissions.
        threads: number of threads; the numbers do not depend on it. BURST's are computed in one, about as fast.

    Raises:
        ValueError: even the official rules refuse a file; names file, entry, value and remedy.
    """
    if protocol not in BENCHMARKS:
        raise ValueError(f"protocol: unknown value {protocol!r}; choose one of {', '.join(BENCHMARKS)}")
    start, benchmark = time.monotonic(), BENCHMARKS[protocol]
    official = benchmark.evaluate(ground_truth, predictions, strict=False, threads=threads)
    strict, refusal = _strict(benchmark, official, ground_truth, predictions, threads)
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
    protocol: Protocol, ground_truth: GroundTruth, tracks: Sequence[PredictedTrack], *, threads: int = 1
) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the official numbers of tracks in memory, and the AP50 lost to each kind of error.

    Raises:
        ValueError: BURST, whose numbers need a file.
    """
    benchmark = BENCHMARKS[protocol]
    if not isinstance(benchmark, TrackBenchmark):
        raise ValueError(f"protocol: {protocol} has a ground truth of another format; score a file")
    return benchmark.score_tracks(ground_truth, tracks, threads=threads)


def _strict(
    benchmark: Benchmark, official: Evaluation, ground_truth: str, predictions: str, threads: int
) -> tuple[Mapping[str, float] | None, str | None]:
    """Returns the numbers by strict rules, or why they refuse the files; files without oddities give the same."""
    if not official.warnings:
        return official.numbers, None
    try:
        return benchmark.evaluate(ground_truth, predictions, strict=True, threads=threads).numbers, None
    except ValueError as error:
        return None, str(error)
