"""What a benchmark is: its files, its scores, and how reports show them.

Readers and metrics are imported by the methods that need them, so that command lines can list benchmarks at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.datasets.annotations import AnyGroundTruth, GroundTruth, PredictedTrack, by_stated_id
from pipelines.metrics.rules import EMPTY_MEAN, YTVIS, ApRules

if TYPE_CHECKING:
    from pipelines.metrics.track_matching import Matches


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of a pair of files by one kind of rules.

    Attributes:
        numbers: flat names; -1 for the mean of nothing.
        errors: AP50 lost to each kind of error, fractions.
        warnings: oddities of the files that the rules accept, and how often each occurs.
        sha256: hashes of the files.
    """

    numbers: dict[str, float]
    errors: dict[str, float]
    warnings: dict[str, int]
    sha256: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class NumberTable:
    """A table of numbers for the terminal.

    Attributes:
        rows: names of the rows.
        columns: by heading, the name of the number; {} stands for the row.
    """

    rows: tuple[str, ...]
    columns: Mapping[str, str]


AP_TABLE = NumberTable(
    rows=("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"),
    columns={"all": "{}", "base": "base/{}", "novel": "novel/{}", "with_categories": "with_categories/{}"},
)


@dataclass(frozen=True, kw_only=True)
class Benchmark(ABC):
    """A benchmark.

    Attributes:
        title: name in reports.
        top_k: predictions per video in published numbers.
        columns: numbers in a report and their headings.
        official: whether the numbers are those of an official evaluator.
        factor: factor from numbers to percent.
        headline: the numbers that sum up a result; charts show the first.
        pair: two of `columns` that a chart compares, such as base and novel categories.
        controls: `columns` that measure no model, so that none of them is the best.
        table: numbers on the terminal.
        published_names: regular expression for names of the data set that published numbers are from, in lower case
            without punctuation; None if there are no such numbers.
    """

    title: str
    top_k: int
    columns: Mapping[str, str]
    official: bool = True
    factor: float = 100
    headline: tuple[str, ...] = ("AP", "AP50")
    pair: tuple[str, str] | None = None
    controls: frozenset[str] = frozenset()
    table: NumberTable = AP_TABLE
    published_names: str | None = None

    @abstractmethod
    def read_ground_truth(self, path: str, *, strict: bool) -> AnyGroundTruth:
        """Reads a ground truth.

        Raises:
            ValueError: names file, entry, value and remedy.
        """

    @abstractmethod
    def check(self, ground_truth: AnyGroundTruth) -> None:
        """Refuses annotations that no predictions could be scored by.

        Raises:
            ValueError: names file, entry, value and remedy.
        """

    @abstractmethod
    def write_predictions(self, path: Path, ground_truth: AnyGroundTruth, tracks: Iterable[PredictedTrack]) -> None:
        """Writes the file that the benchmark's server takes."""

    @abstractmethod
    def evaluate(self, ground_truth: str, predictions: str, *, strict: bool, threads: int) -> Evaluation:
        """Scores a file of predictions.

        Raises:
            ValueError: names file, entry, value and remedy.
        """

    def percent(self, numbers: Mapping[str, float], name: str) -> float | None:
        """Returns a number in percent; None if it is absent or the mean of nothing."""
        value = numbers.get(name, EMPTY_MEAN)
        return None if value == EMPTY_MEAN else value * self.factor

    def remarks(self, numbers: Mapping[str, float]) -> list[str]:
        """Returns lines that belong below the numbers."""
        return []


_FEDERATED = "videos of which only some categories are known: predictions of the others count as wrong"


@dataclass(frozen=True, kw_only=True)
class TrackBenchmark(Benchmark):
    """A benchmark with the files of YouTube-VIS, scored by average precision of tracks.

    Attributes:
        rules: rules of average precision.
    """

    rules: ApRules

    def read_ground_truth(self, path: str, *, strict: bool) -> GroundTruth:
        """Reads a ground truth in the format of YouTube-VIS."""
        from pipelines.datasets import ytvis

        return ytvis.read_ground_truth(path, strict=strict)

    def check(self, ground_truth: AnyGroundTruth) -> None:
        """Refuses categories that are neither base nor novel where the rules want them to be."""
        if self.rules.partitions:
            from pipelines.metrics.video_ap import partition_rows

            assert isinstance(ground_truth, GroundTruth)
            partition_rows(ground_truth)

    def write_predictions(self, path: Path, ground_truth: AnyGroundTruth, tracks: Iterable[PredictedTrack]) -> None:
        """Writes predictions in the format of YouTube-VIS."""
        from pipelines.datasets import ytvis

        assert isinstance(ground_truth, GroundTruth)
        ytvis.write_predictions(path, tracks, ground_truth)

    def score_tracks(
        self, ground_truth: GroundTruth, tracks: Sequence[PredictedTrack], *, strict: bool = False, threads: int = 1
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Returns the numbers of tracks in memory, and the AP50 lost to each kind of error."""
        from pipelines.metrics.errors import error_costs
        from pipelines.metrics.track_matching import match_tracks

        rules = self._rules(ground_truth, strict)
        matches = list(match_tracks(ground_truth, tracks, rules, pairs="video", threads=threads))
        numbers = self._numbers(ground_truth, tracks, matches, rules, threads)
        return numbers, error_costs(ground_truth, matches, rules)

    def evaluate(self, ground_truth: str, predictions: str, *, strict: bool, threads: int) -> Evaluation:
        """Scores a file of predictions in the format of YouTube-VIS."""
        from pipelines.datasets import mask_table, ytvis
        from pipelines.datasets.run_lengths import CorruptMaskError

        truth = self.read_ground_truth(ground_truth, strict=strict)
        truth.check_annotated()
        listed = self._rules(truth, strict).forced_category is None
        read = partial(ytvis.read_predictions, predictions, truth, strict=strict, categories=listed)
        predicted = read(masks=False)  # they are checked while they are scored, so that each is read once
        try:
            numbers, errors = self.score_tracks(truth, predicted.tracks, strict=strict, threads=threads)
            mask_table.check(track.masks for track in predicted.tracks)
        except CorruptMaskError:
            read()  # names the mask
            raise
        federated = sum(1 for video in truth.videos if video.federation and any(vars(video.federation).values()))
        unknown = {_FEDERATED: federated} if federated else {}
        return Evaluation(
            numbers=numbers,
            errors=errors,
            warnings={**truth.warnings, **unknown, **predicted.warnings},
            sha256={"ground_truth_sha256": truth.sha256, "predictions_sha256": predicted.sha256},
        )

    def _rules(self, ground_truth: GroundTruth, strict: bool) -> ApRules:
        """UVO's evaluator gives all predictions the only category; of several categories, it ignores which."""
        forced = self.rules.forced_category
        ids = by_stated_id(ground_truth.categories).keys()
        return replace(self.rules, forced_category=forced if ids == {forced} else None, strict=strict)

    def _numbers(
        self,
        ground_truth: GroundTruth,
        tracks: Sequence[PredictedTrack],
        matches: "Sequence[Matches]",
        rules: ApRules,
        threads: int,
    ) -> dict[str, float]:
        """Where the rules ignore categories, adds the numbers with them."""
        from pipelines.metrics.video_ap import average_precision, video_ap

        numbers = average_precision(ground_truth, matches, rules)
        if not rules.categories and len(ground_truth.categories) > 1:
            named = video_ap(ground_truth, tracks, replace(YTVIS, strict=rules.strict), threads=threads)
            numbers |= {f"with_categories/{name}": value for name, value in named.items()}
        return numbers


class ShapesBenchmark(TrackBenchmark):
    """Shapes, which is our own: no official tool's leniency has to be copied, so it is always strict."""

    def read_ground_truth(self, path: str, *, strict: bool) -> GroundTruth:
        """Reads a ground truth in the format of YouTube-VIS, always strictly."""
        return super().read_ground_truth(path, strict=True)

    def remarks(self, numbers: Mapping[str, float]) -> list[str]:
        """Says how many objects the means are over, and warns of too few."""
        from pipelines.metrics.open_vocabulary import MIN_TRACKS

        categories, fewest = numbers["categories"], numbers["min_tracks"]
        lines = [f"{categories:.0f} categories have objects, the rarest {max(0, fewest):.0f}"]
        if fewest < MIN_TRACKS:
            lines.append(
                f"warning: not by the protocol, which wants {MIN_TRACKS} objects or more of each category that occurs"
            )
        return lines

    def evaluate(self, ground_truth: str, predictions: str, *, strict: bool, threads: int) -> Evaluation:
        """Scores a file of predictions in the format of YouTube-VIS, always strictly.

        Strict reading warns only of what official tools do otherwise, which does not matter here.
        """
        scored = super().evaluate(ground_truth, predictions, strict=True, threads=threads)
        known = {what: times for what, times in scored.warnings.items() if what == _FEDERATED}
        return replace(scored, warnings=known)

    def _rules(self, ground_truth: GroundTruth, strict: bool) -> ApRules:
        return self.rules

    def _numbers(
        self,
        ground_truth: GroundTruth,
        tracks: Sequence[PredictedTrack],
        matches: "Sequence[Matches]",
        rules: ApRules,
        threads: int,
    ) -> dict[str, float]:
        """Returns the protocol's numbers, and the ends of 95 % intervals as `low/NAME` and `high/NAME`."""
        from pipelines.metrics.intervals import confidence_intervals
        from pipelines.metrics.open_vocabulary import open_vocabulary

        numbers = open_vocabulary(ground_truth, tracks, threads=threads)
        for name, (low, high) in confidence_intervals(ground_truth, tracks, threads=threads).items():
            numbers |= {f"low/{name}": low, f"high/{name}": high}
        return numbers


class BurstBenchmark(Benchmark):
    """BURST, which has files and metrics of its own."""

    def read_ground_truth(self, path: str, *, strict: bool) -> AnyGroundTruth:
        """Reads a ground truth in the format of BURST."""
        from pipelines.datasets import burst_files

        return burst_files.read_ground_truth(path, strict=strict)

    def check(self, ground_truth: AnyGroundTruth) -> None:
        """Refuses sequences without an object that has a score."""
        from pipelines.datasets.burst import BurstGroundTruth
        from pipelines.metrics.burst import scored_categories
        from pipelines.metrics.burst_preparation import evaluated

        assert isinstance(ground_truth, BurstGroundTruth)
        scored_categories(ground_truth, [evaluated(sequence) for sequence in ground_truth.sequences])

    def write_predictions(self, path: Path, ground_truth: AnyGroundTruth, tracks: Iterable[PredictedTrack]) -> None:
        """Writes a result file in the format of BURST."""
        from pipelines.datasets import burst_files
        from pipelines.datasets.burst import BurstGroundTruth

        assert isinstance(ground_truth, BurstGroundTruth)
        burst_files.write_tracks(str(path), ground_truth, tracks)

    def evaluate(self, ground_truth: str, predictions: str, *, strict: bool, threads: int) -> Evaluation:
        """Scores all three tasks, in one thread; the open world also reads `common_classes.json` and its like."""
        from pipelines.datasets import burst_files
        from pipelines.metrics.burst import guided, open_world
        from pipelines.metrics.burst_errors import burst_error_costs

        truth = burst_files.read_ground_truth(ground_truth, strict=strict)
        predicted = burst_files.read_predictions(predictions, truth, strict=strict)
        splits = {
            split: burst_files.read_ground_truth(str(path), strict=strict)
            for split in ("common", "uncommon")
            if (path := Path(ground_truth).with_name(f"{split}_classes.json")).exists()
        }
        sha256 = {"ground_truth_sha256": truth.sha256, "predictions_sha256": predicted.sha256}
        return Evaluation(
            numbers={
                **guided(truth, predicted, strict=strict),
                **open_world(truth, predicted, **splits),
            },
            errors=burst_error_costs(truth, predicted),
            warnings={**truth.warnings, **predicted.warnings},
            sha256=sha256 | {f"{split}_sha256": part.sha256 for split, part in splits.items()},
        )
