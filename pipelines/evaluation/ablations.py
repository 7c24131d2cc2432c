"""The paper's ablations on another data set: the rows of its tables, and whether its orderings hold."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openvis_model.options import AssociationConfig
from pipelines.datasets import ytvis
from pipelines.evaluation.benchmarks import BENCHMARKS
from pipelines.evaluation.config import (
    AblationConfig,
    AblationsConfig,
    CheckpointConfig,
    ClaimConfig,
    ModelConfig,
    RowConfig,
    SweepConfig,
)
from pipelines.evaluation.report import CellResult, show_number
from pipelines.evaluation.sweep import run_sweep
from pipelines.labelling.progress import Progress
from pipelines.metrics.intervals import Difference, paired_difference
from pipelines.storage.files import Storage

Verdict = Literal["holds", "reversed", "undecided"]

REPORT = "ablations.md"


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
        dataset.name: ytvis.read_ground_truth(dataset.ground_truth, strict=True)
        for dataset in config.datasets
        if dataset.name in of.values()
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
        for row in (row for row in config.rows if row.table == table):
            shown = [show_number(results[row.name], name) for name in _COLUMNS]
            lines += [f"| {row.name} | {row.dataset} | {row.paper or '–'} | {' | '.join(shown)} |"]
        lines += [""]
    lines += ["### Orderings", "", "| the paper has | better by | 95 % interval | here |", "|---|---|---|---|"]
    for finding in findings:
        claim, (value, low, high) = finding.claim, (100 * number for number in finding.difference)
        ordering = f"{claim.better} > {claim.worse}"
        lines += [f"| {ordering} | {value:+.1f} {claim.number} | {low:+.1f} to {high:+.1f} | {finding.verdict} |"]
    return "\n".join(lines) + "\n"
