"""The paper's ablations on another data set: the rows of its tables, and whether its orderings hold."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from openvis_model.association import AssociationConfig
from pipelines.datasets import ytvis
from pipelines.evaluation.benchmarks import BENCHMARKS
from pipelines.evaluation.report import CellResult, show_number
from pipelines.evaluation.sweep import AblationConfig, BenchmarkConfig, CheckpointConfig, SweepConfig, run_sweep
from pipelines.labelling.progress import Progress
from pipelines.metrics.intervals import NAMES, Difference, paired_difference
from pipelines.storage.files import Storage

Verdict = Literal["holds", "reversed", "undecided"]

REPORT = "ablations.md"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A training: its name, and the files of options for `jobs.train`, of which later ones win."""

    name: str
    configs: list[str]


@dataclass(frozen=True, kw_only=True)
class RowConfig:
    """A row of a table.

    Attributes:
        table: which, as the paper numbers them.
        name: of the row, unique.
        model: which of the models.
        dataset: which of the data sets.
        association: how instances are linked.
        paper: the paper's number on BURST in percent, if it has the row.
    """

    table: str
    name: str
    model: str
    dataset: str
    association: AssociationConfig = field(default_factory=AssociationConfig)
    paper: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClaimConfig:
    """An ordering: of two rows on one data set the first is better.

    Attributes:
        better: name of a row.
        worse: name of another.
        number: in which number, of `pipelines.metrics.intervals.NAMES`.
    """

    better: str
    worse: str
    number: str = "AP"


@dataclass(frozen=True, kw_only=True)
class AblationsConfig:
    """All ablations.

    Attributes:
        output: folder of models, sweeps and tables.
        models: trained in this order.
        datasets: with the protocol `shapes`.
        rows: of all tables.
        claims: orderings to look at.

    Raises:
        ValueError: a name that is not there or there twice; names it.
    """

    output: str
    models: list[ModelConfig]
    datasets: list[BenchmarkConfig]
    rows: list[RowConfig]
    claims: list[ClaimConfig] = field(default_factory=list)

    def __post_init__(self) -> None:
        models, datasets, rows = (
            _unique(field, [each.name for each in getattr(self, field)]) for field in ("models", "datasets", "rows")
        )
        for row in self.rows:
            _known(f"rows: {row.name}: model", row.model, models)
            _known(f"rows: {row.name}: dataset", row.dataset, datasets)
        for dataset in self.datasets:
            if dataset.protocol != "shapes":
                raise ValueError(f"datasets: {dataset.name}: protocol: expected shapes, got {dataset.protocol}")
        of = {row.name: row.dataset for row in self.rows}
        for claim in self.claims:
            _known("claims: better", claim.better, rows)
            _known("claims: worse", claim.worse, rows)
            _known(f"claims: {claim.better}: number", claim.number, NAMES)
            if of[claim.better] != of[claim.worse]:
                raise ValueError(f"claims: {claim.better} and {claim.worse} are rows of different data sets")

    def model_path(self, name: str) -> str:
        """Folder of a training's output."""
        return f"{self.output.rstrip('/')}/models/{name}"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The test of a claim: it holds or is reversed only where the difference's 95 % interval excludes 0."""

    claim: ClaimConfig
    difference: Difference

    @property
    def verdict(self) -> Verdict:
        """Says whether the ordering also holds for other videos of the same kind."""
        if self.difference.low > 0:
            return "holds"
        return "reversed" if self.difference.high < 0 else "undecided"


def run_ablations(
    config: AblationsConfig,
    train: Callable[[ModelConfig, str], None],
    report: Callable[[str, Progress, int], None] = lambda cell, done, total: None,
) -> list[Finding]:
    """Runs the trainings and the cells that are not finished, and writes `ablations.md` to the output.

    A run that is repeated resumes where it stopped.

    Args:
        config: the ablations.
        train: called for each model with the folder of its training.
        report: called about once a second with the name of a cell, its progress and its number of videos.

    Raises:
        ValueError: a data set or the output is unusable.
        RuntimeError: a cell failed; names it and says why.
    """
    for model in config.models:
        train(model, config.model_path(model.name))
    cells: dict[str, tuple[Path, CellResult]] = {}
    for rows in _sweeps(config.rows):
        cells |= _run(config, rows, report)
    findings = list(_findings(config, cells))
    with Storage(config.output).write(REPORT) as file:
        file.write(_markdown(config, {name: result for name, (_, result) in cells.items()}, findings).encode())
    return findings


def _sweeps(rows: Sequence[RowConfig]) -> Iterator[list[RowConfig]]:
    """Yields the rows of each pair of model and data set."""
    for key in dict.fromkeys((row.model, row.dataset) for row in rows):
        yield [row for row in rows if (row.model, row.dataset) == key]


def _run(
    config: AblationsConfig, rows: Sequence[RowConfig], report: Callable[[str, Progress, int], None]
) -> dict[str, tuple[Path, CellResult]]:
    """Returns the folder and the result of each row of a model and data set; rows with the same settings share them."""
    model, dataset = rows[0].model, rows[0].dataset
    output = f"{config.output.rstrip('/')}/sweeps/{model}-{dataset}"
    associations = {_name(row.association): row.association for row in rows}
    sweep = SweepConfig(
        output=output,
        datasets=[entry for entry in config.datasets if entry.name == dataset],
        checkpoints=[CheckpointConfig(name=model, path=f"{config.model_path(model)}/model")],
        ablations=[AblationConfig(name=name, association=value) for name, value in associations.items()],
    )
    results = {result.ablation: result for result in run_sweep(sweep, report)}
    for row in rows:
        if error := results[_name(row.association)].error:
            raise RuntimeError(f"{row.name}: {error}")
    return {
        row.name: (Path(output, "cells", f"{model},{dataset},{name}"), results[name])
        for row in rows
        for name in (_name(row.association),)
    }


def _name(association: AssociationConfig) -> str:
    return "-".join(str(value) for value in vars(association).values() if value is not None)


def _findings(config: AblationsConfig, cells: dict[str, tuple[Path, CellResult]]) -> Iterator[Finding]:
    of = {row.name: row.dataset for row in config.rows}
    truths = {
        each.name: ytvis.read_ground_truth(each.ground_truth, strict=True)
        for each in config.datasets
        if each.name in of.values()
    }
    for claim in config.claims:
        truth = truths[of[claim.better]]
        better, worse = (
            tuple(ytvis.read_predictions(str(cells[name][0] / "predictions.json"), truth, strict=True).tracks)
            for name in (claim.better, claim.worse)
        )
        yield Finding(claim=claim, difference=paired_difference(truth, better, worse, name=claim.number))


_COLUMNS = ("AP", "micro/AP", "top1", "agnostic/AP")


def _markdown(config: AblationsConfig, results: dict[str, CellResult], findings: Sequence[Finding]) -> str:
    headings = [BENCHMARKS["shapes"].columns[name] for name in _COLUMNS]
    lines: list[str] = []
    for table in dict.fromkeys(row.table for row in config.rows):
        lines += [f"### Table {table}", "", f"| | videos | paper, BURST | {' | '.join(headings)} |"]
        lines += ["|" + "---|" * (3 + len(_COLUMNS))]
        for row in (each for each in config.rows if each.table == table):
            shown = [show_number(results[row.name], name) for name in _COLUMNS]
            lines += [f"| {row.name} | {row.dataset} | {row.paper or '–'} | {' | '.join(shown)} |"]
        lines += [""]
    lines += ["### Orderings", "", "| the paper has | better by | 95 % interval | here |", "|---|---|---|---|"]
    for finding in findings:
        claim, (value, low, high) = finding.claim, (100 * each for each in finding.difference)
        ordering = f"{claim.better} > {claim.worse}"
        lines += [f"| {ordering} | {value:+.1f} {claim.number} | {low:+.1f} to {high:+.1f} | {finding.verdict} |"]
    return "\n".join(lines) + "\n"


def _unique(field: str, names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{field}: name {name!r} is there twice; give each its own")
    return names


def _known(field: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise ValueError(f"{field}: unknown value {name!r}; choose from {', '.join(names)}")
