"""Evaluates on video instance segmentation benchmarks, exact to the official numbers.

python -m jobs.evaluate score --protocol lvvis --ground_truth val_instances.json --predictions results.json
python -m jobs.evaluate run --config sweep.yaml

The exit code is 0, 1 if a cell of a sweep failed or the run broke off, 2 for bad input, 75 if it was interrupted.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.command import check_present, run_job, start
from jobs.label import LabelProgress
from jobs.options import read_command
from pipelines.evaluation.config import Protocol, SweepConfig
from pipelines.labelling.progress import Progress

if TYPE_CHECKING:
    from pipelines.evaluation.report import CellResult
    from pipelines.evaluation.score import Score

_BURST = ("HOTA", "DetA", "AssA", "AP")
_SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Scores a file of predictions.

    Attributes:
        protocol: benchmark whose rules apply.
        ground_truth: annotation file; of BURST, all_classes.json.
        predictions: file in the benchmark's format for submissions.
        output: JSON file for all numbers, those of every category included.
        threads: number of threads.
    """

    protocol: Protocol
    ground_truth: str
    predictions: str
    output: str | None = None
    threads: int = 1


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("evaluate", lambda: _evaluate(arguments), interrupted="finished cells stay, run it again to go on")


def _evaluate(arguments: list[str] | None) -> int:
    config = read_command("evaluate", __doc__, {"score": ScoreConfig, "run": SweepConfig}, arguments)
    return _score(config) if isinstance(config, ScoreConfig) else _run(config)


def _score(options: ScoreConfig) -> int:
    for name in ("ground_truth", "predictions"):
        check_present(name, getattr(options, name))

    from pipelines.evaluation.score import score

    scored = score(options.protocol, options.ground_truth, options.predictions, threads=options.threads)
    if options.output:
        scored.write(options.output)
    print_score(scored)
    if options.output:
        print(f"all {len(scored.numbers)} numbers: {options.output}")
    return 0


def _run(config: SweepConfig) -> int:
    for dataset in config.datasets:
        check_present(f"datasets: {dataset.name}: ground_truth", dataset.ground_truth)
    for checkpoint in config.checkpoints:
        check_present(f"checkpoints: {checkpoint.name}: path", checkpoint.path)

    from pipelines.evaluation.sweep import run_sweep

    progress = CellProgress()
    results = run_sweep(config, progress)
    progress.line.line.end()
    print_results(results)
    print(f"tables and page: {config.output}/index.html")
    return 1 if any(result.status == "failed" for result in results) else 0


class CellProgress:
    """A progress line per cell."""

    def __init__(self) -> None:
        self.cell, self.line = "", LabelProgress()

    def __call__(self, cell: str, done: Progress, total: int) -> None:
        """Shows how far the cell has come."""
        if cell != self.cell:
            self.line.line.end()
            self.cell, self.line = cell, LabelProgress()
            print(cell, file=sys.stderr)
        self.line(done, total)


def print_score(scored: "Score") -> None:
    """Prints the main numbers in percent, what AP50 is lost to, what strict rules make of the files, and warnings."""
    from pipelines.metrics.errors import KINDS

    rules = "our own rules" if scored.protocol == "shapes" else "official rules"
    print(f"{scored.protocol}, {rules}, {scored.seconds:.1f} s, in percent")
    if scored.protocol == "shapes":
        _print_shapes(scored.numbers)
    elif scored.protocol == "burst":
        _print_table(
            ("all", "common", "uncommon"),
            {
                f"{task} {name}": [scored.numbers[f"{task}/{name}/{split}"] for split in ("all", "common", "uncommon")]
                for task, names in (("class_guided", (*_BURST, "mask_HOTA")), ("open_world", ("OWTA", "DetRe", "AssA")))
                for name in names
            },
        )
    else:
        kinds = [kind for kind in ("", "base/", "novel/", "with_categories/") if f"{kind}AP" in scored.numbers]
        rows = {name: [_percent(scored.numbers[f"{kind}{name}"]) for kind in kinds] for name in _SHOWN}
        _print_table([kind.rstrip("/") or "all" for kind in kinds], rows)
    print("AP50 lost to " + ", ".join(f"{kind} {100 * scored.errors[kind]:.1f}" for kind in KINDS))
    for warning, times in scored.warnings.items():
        print(f"warning: {times} × {warning}")
    if scored.refusal:
        print(f"strict rules refuse the files: {scored.refusal}")
    for name, (official, strict) in scored.differing().items():
        if "/cat/" not in name:
            print(f"by strict rules {name} is {strict:.6f}, not {official:.6f}")


def _print_shapes(numbers: Mapping[str, float]) -> None:
    """Prints base beside novel, the ends of 95 % intervals of the first column, and how much there is to average."""
    from pipelines.metrics.open_vocabulary import MIN_TRACKS

    words = [name for name in ("top1/colour", "top1/texture", "top1/shape") if name in numbers]
    names = ["AP", "AP50", "AP75", "AR1", "AR10", "micro/AP", "micro/AP50", "top1", "top1/matched", *words, "matched"]
    names += [f"agnostic/{name}" for name in ("AP", "AP50", "AR1", "AR10")]
    names += ["oracle/AP", "permuted/AP", "permuted/top1"]
    kinds = ("", "base/", "novel/", "low/", "high/")
    rows = {name: [_percent(numbers.get(f"{kind}{name}", -1)) for kind in kinds] for name in names}
    _print_table(("all", "base", "novel", "95 % from", "to"), rows)
    categories, fewest = numbers["categories"], numbers["min_tracks"]
    print(f"{categories:.0f} categories have objects, the rarest {max(0, fewest):.0f}")
    if fewest < MIN_TRACKS:
        print(f"warning: not by the protocol, which wants {MIN_TRACKS} objects or more of each category that occurs")


def print_results(results: Sequence["CellResult"]) -> None:
    """Prints a line per cell."""
    for result in results:
        name = f"{result.checkpoint}, {result.dataset}, {result.ablation}"
        if result.status == "failed":
            print(f"{name}: failed: {result.error}")
        elif result.protocol == "burst":
            print(f"{name}: HOTA {result.numbers['class_guided/HOTA/all']:.1f}")
        else:
            print(f"{name}: AP {_percent(result.numbers['AP']):.1f}, AP50 {_percent(result.numbers['AP50']):.1f}")


def _percent(fraction: float) -> float:
    return fraction if fraction == -1 else 100 * fraction


def _print_table(columns: Sequence[str], rows: dict[str, list[float]]) -> None:
    width = max(map(len, rows)) + 2
    print(" " * width + "".join(f"{column:>17}" for column in columns))
    for name, values in rows.items():
        print(f"{name:<{width}}" + "".join(f"{'–' if value == -1 else f'{value:.2f}':>17}" for value in values))


if __name__ == "__main__":
    start(main)
