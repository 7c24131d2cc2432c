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
    RowConfig,
    SweepConfig,
)
from pipelines.evaluation.report import DASH, CellResult, show_number
from pipelines.evaluation.sweep import Dataset, local_output, run_sweep
from pipelines.labelling.progress import Progress
from pipelines.metrics.intervals import Difference, paired_difference
from pipelines.storage.files import Storage

Verdict = Literal["holds", "reversed", "undecided"]

REPORT = "ablations.md"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The test of a claim.

    It holds or is reversed only where the 95 % interval of the mean difference excludes 0, and the difference has the
    same sign with each seed. The interval is over videos and seeds, drawn together; a few seeds are a small sample.
    """

    claim: ClaimConfig
    difference: Difference

    @property
    def verdict(self) -> Verdict:
        """Says whether the ordering also holds for other videos of the same kind, and other trainings."""
        if self.difference.low > 0 and min(self.difference.each) > 0:
            return "holds"
        return "reversed" if self.difference.high < 0 and max(self.difference.each) < 0 else "undecided"


def run_ablations(
    config: AblationsConfig,
    train: Callable[[str, list[str]], None],
    report: Callable[[str, Progress, int], None] = lambda cell, done, total: None,
) -> list[Finding]:
    """Runs the trainings and the cells that are not finished, and writes `ablations.md` to the output.

    A run that is repeated resumes where it stopped.

    Args:
        config: the ablations.
        train: called for each training with its name and its options for `jobs.train`.
        report: called about once a second with the name of a cell, its progress and its number of videos.

    Raises:
        ValueError: a data set or the output is unusable.
        RuntimeError: a cell failed; names it and says why.
    """
    local_output(config.output)  # all of it before the first training, which may take hours
    for dataset in config.datasets:
        opened = Dataset.open(dataset)
        if not opened.ground_truth.annotated:
            raise ValueError(f"datasets: {dataset.name}: {dataset.ground_truth} has no annotations to score by")
    for seed in config.seeds:
        for model in config.models:
            train(config.training(model.name, seed), config.options(model, seed))
    cells: dict[str, list[tuple[Path, CellResult]]] = {}
    for rows in _sweeps(config.rows):
        cells |= _run(config, rows, report)
    findings = list(_findings(config, cells))
    with Storage(config.output).write(REPORT) as file:
        file.write(
            _markdown(config, {name: [cell for _, cell in of_row] for name, of_row in cells.items()}, findings).encode()
        )
    return findings


def _sweeps(rows: Sequence[RowConfig]) -> Iterator[list[RowConfig]]:
    """Yields the rows of each pair of model and data set."""
    for key in dict.fromkeys((row.model, row.dataset) for row in rows):
        yield [row for row in rows if (row.model, row.dataset) == key]


def _run(
    config: AblationsConfig, rows: Sequence[RowConfig], report: Callable[[str, Progress, int], None]
) -> dict[str, list[tuple[Path, CellResult]]]:
    """Returns, for each row of a model and data set, the folder and the result of each seed.

    Rows with the same settings share them.
    """
    model, dataset = rows[0].model, rows[0].dataset
    output = f"{config.output.rstrip('/')}/sweeps/{model}-{dataset}"
    associations = {_name(row.association): row.association for row in rows}
    sweep = SweepConfig(
        output=output,
        datasets=[entry for entry in config.datasets if entry.name == dataset],
        checkpoints=[
            CheckpointConfig(name=config.training(model, seed), path=f"{config.model_path(model, seed)}/model")
            for seed in config.seeds
        ],
        ablations=[AblationConfig(name=name, association=value) for name, value in associations.items()],
    )
    results = {(result.checkpoint, result.ablation): result for result in run_sweep(sweep, report)}
    cells: dict[str, list[tuple[Path, CellResult]]] = {}
    for row in rows:
        ablation = _name(row.association)
        for seed in config.seeds:
            training = config.training(model, seed)
            result = results[training, ablation]
            if result.error:
                raise RuntimeError(f"{row.name}: {result.error}")
            cells.setdefault(row.name, []).append((Path(output, "cells", f"{training},{dataset},{ablation}"), result))
    return cells


def _name(association: AssociationConfig) -> str:
    return "-".join(str(value) for value in vars(association).values() if value is not None)


def _findings(config: AblationsConfig, cells: dict[str, list[tuple[Path, CellResult]]]) -> Iterator[Finding]:
    of = {row.name: row.dataset for row in config.rows}
    truths = {
        dataset.name: ytvis.read_ground_truth(dataset.ground_truth, strict=True)
        for dataset in config.datasets
        if dataset.name in of.values()
    }
    for claim in config.claims:
        truth = truths[of[claim.better]]
        better, worse = (
            [
                ytvis.read_predictions(str(cell / "predictions.json"), truth, strict=True).tracks
                for cell, _ in cells[name]
            ]
            for name in (claim.better, claim.worse)
        )
        pairs = list(zip(better, worse, strict=True))
        yield Finding(claim=claim, difference=paired_difference(truth, pairs, name=claim.number))


_COLUMNS = ("AP", "micro/AP", "top1", "agnostic/AP")


def _markdown(config: AblationsConfig, results: dict[str, list[CellResult]], findings: Sequence[Finding]) -> str:
    headings = [BENCHMARKS["shapes"].columns[name] for name in _COLUMNS]
    lines: list[str] = []
    for table in dict.fromkeys(row.table for row in config.rows):
        lines += [f"### Table {table}", "", f"| | videos | paper, BURST | {' | '.join(headings)} |"]
        lines += ["|" + "---|" * (3 + len(_COLUMNS))]
        for row in (row for row in config.rows if row.table == table):
            shown = [_number(results[row.name], name) for name in _COLUMNS]
            lines += [f"| {row.name} | {row.dataset} | {row.paper or '–'} | {' | '.join(shown)} |"]
        lines += [""]
    notes = dict.fromkeys(
        f"- {row.dataset}: {note}"
        for row in config.rows
        for result in results[row.name]
        for note in (*result.warnings, *BENCHMARKS[result.protocol].remarks(result.numbers))
    )
    lines += ["### Data sets", "", *notes, ""]
    lines += [
        "### Orderings",
        "",
        "| the paper has | better by | 95 % interval | each seed | here |",
        "|---|---|---|---|---|",
    ]
    for finding in findings:
        claim, difference = finding.claim, finding.difference
        value, low, high, *each = (f"{100 * number:+.1f}" for number in (*difference[:3], *difference.each))
        ordering = f"{claim.better} > {claim.worse}"
        lines += [f"| {ordering} | {value} {claim.number} | {low} to {high} | {', '.join(each)} | {finding.verdict} |"]
    return "\n".join(lines) + "\n"


def _number(results: Sequence[CellResult], name: str) -> str:
    """Returns a number in percent with its interval; of several seeds the mean, the smallest and the largest."""
    if len(results) == 1:
        return show_number(results[0], name)
    values = [BENCHMARKS[result.protocol].percent(result.numbers, name) for result in results]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return DASH
    return f"{sum(known) / len(known):.1f} ({min(known):.1f} to {max(known):.1f})"
