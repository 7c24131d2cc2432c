"""Evaluates on video instance segmentation benchmarks, exact to the official numbers.

python -m jobs.evaluate score --protocol lvvis --ground_truth val_instances.json --predictions results.json
python -m jobs.evaluate run --config sweep.yaml

The exit code is 0, 1 if a cell of a sweep or the whole run failed, 2 for bad input, 75 if it was interrupted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.command import check_present, run_job, start
from jobs.options import read_command
from jobs.progress import CellProgress
from pipelines.evaluation.benchmark import Benchmark
from pipelines.evaluation.benchmarks import BENCHMARKS, Protocol
from pipelines.evaluation.config import SweepConfig

if TYPE_CHECKING:
    from pipelines.evaluation.report import CellResult
    from pipelines.evaluation.score import Score


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Scores a file of predictions.

    Attributes:
        protocol: benchmark whose rules apply.
        ground_truth: annotation file; of BURST, all_classes.json.
        predictions: file in the benchmark's format for submissions.
        output: JSON file for all numbers, including those of each category.
        threads: number of threads.
    """

    protocol: Protocol
    ground_truth: str
    predictions: str
    output: str | None = None
    threads: int = 1


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job(
        "evaluate", lambda: _evaluate(arguments), interrupted="finished cells are kept; run it again to resume"
    )


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
    progress.end()
    print_results(results)
    print(f"tables and page: {config.output}/index.html")
    return 1 if any(result.status == "failed" for result in results) else 0


def print_score(scored: "Score") -> None:
    """Prints the main numbers in percent, the causes of lost AP50, warnings, and differences under strict rules."""
    from pipelines.metrics.errors import KINDS

    benchmark = BENCHMARKS[scored.protocol]
    rules = "official rules" if benchmark.official else "our own rules"
    print(f"{scored.protocol}, {rules}, {scored.seconds:.1f} s, in percent")
    _print_table(benchmark, scored.numbers)
    for line in benchmark.remarks(scored.numbers):
        print(line)
    print("AP50 lost to " + ", ".join(f"{kind} {100 * scored.errors[kind]:.1f}" for kind in KINDS))
    for note in scored.notes():
        print(f"warning: {note}")


def print_results(results: Sequence["CellResult"]) -> None:
    """Prints a line per cell."""
    for result in results:
        name = f"{result.checkpoint}, {result.dataset}, {result.ablation}"
        if result.status == "failed":
            print(f"{name}: failed: {result.error}")
        elif result.status == "unscored":
            print(f"{name}: no annotations to score by; predictions.json is for the benchmark's server")
        else:
            benchmark = BENCHMARKS[result.protocol]
            headline = [
                f"{benchmark.columns.get(number, number)} {_percent(benchmark, result.numbers, number, 1)}"
                for number in benchmark.headline
            ]
            print(f"{name}: {', '.join(headline)}")
        for note in result.warnings:
            print(f"  warning: {note}")


def _print_table(benchmark: Benchmark, numbers: Mapping[str, float]) -> None:
    """Prints the benchmark's table, without rows and columns that have no numbers."""
    table = benchmark.table
    columns = {
        head: name for head, name in table.columns.items() if any(name.format(row) in numbers for row in table.rows)
    }
    rows = [row for row in table.rows if any(name.format(row) in numbers for name in columns.values())]
    width = max(map(len, rows)) + 2
    print(" " * width + "".join(f"{head:>17}" for head in columns))
    for row in rows:
        values = [_percent(benchmark, numbers, name.format(row), 2) for name in columns.values()]
        print(f"{row:<{width}}" + "".join(f"{value:>17}" for value in values))


def _percent(benchmark: Benchmark, numbers: Mapping[str, float], name: str, digits: int) -> str:
    value = benchmark.percent(numbers, name)
    return "–" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    start(main)
