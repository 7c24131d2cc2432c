"""Evaluates on video instance segmentation benchmarks, exact to the official numbers.

python -m jobs.evaluate score --protocol lvvis --ground_truth val_instances.json --predictions results.json
python -m jobs.evaluate run --config sweep.yaml

The exit code is 0, 1 if a cell of a sweep failed or the run broke off, 2 for bad input, 75 if it was interrupted.
"""

import sys
from collections.abc import Mapping, Sequence

from jsonargparse import ArgumentParser, Namespace

from jobs.command import add_files, new_parser, read_options, run_job, start
from jobs.label import ProgressLine
from pipelines.evaluation.benchmark import Benchmark
from pipelines.evaluation.benchmarks import BENCHMARKS, Protocol
from pipelines.evaluation.report import CellResult
from pipelines.evaluation.score import Score, score
from pipelines.evaluation.sweep import SweepConfig, run_sweep
from pipelines.labelling.progress import Progress
from pipelines.metrics.errors import KINDS


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("evaluate", lambda: _evaluate(arguments), interrupted="finished cells stay, run it again to go on")


def _evaluate(arguments: list[str] | None) -> int:
    parser, commands = _parsers()
    options = read_options(parser, arguments, commands)
    return _score(options.score) if options.subcommand == "score" else _run(options.run)


def _parsers() -> tuple[ArgumentParser, list[ArgumentParser]]:
    """The job's, and those of its commands."""
    files = new_parser("evaluate", "Score a file of predictions.")
    files.add_argument("--protocol", type=Protocol, required=True, help="whose rules")
    files.add_argument("--ground_truth", type=str, required=True, help="annotation file; BURST: all_classes.json")
    files.add_argument("--predictions", type=str, required=True, help="file in the benchmark's format for submissions")
    files.add_argument("--output", type=str, help="JSON file for all numbers, those of every category included")
    files.add_argument("--threads", type=int, default=1, help="threads to work in (default: 1)")
    sweep = new_parser("evaluate", "Label, export and score checkpoints × data sets × ablations.")
    add_files(sweep)
    sweep.add_class_arguments(SweepConfig)
    parser = new_parser("evaluate", __doc__)
    commands = parser.add_subcommands()
    commands.add_subcommand("score", files)
    commands.add_subcommand("run", sweep)
    return parser, [files, sweep]


def _score(options: Namespace) -> int:
    scored = score(options.protocol, options.ground_truth, options.predictions, threads=options.threads)
    if options.output:
        scored.write(options.output)
    print_score(scored)
    if options.output:
        print(f"all {len(scored.numbers)} numbers: {options.output}")
    return 0


def _run(options: Namespace) -> int:
    config = SweepConfig(**{name: value for name, value in vars(options).items() if name != "config"})
    results = run_sweep(config, CellProgress())
    print_results(results)
    print(f"tables and page: {config.output}/index.html")
    return 1 if any(result.status == "failed" for result in results) else 0


class CellProgress:
    """A progress line per cell."""

    def __init__(self) -> None:
        self.cell, self.line = "", ProgressLine()

    def __call__(self, cell: str, done: Progress, total: int) -> None:
        """Shows how far the cell has come."""
        if cell != self.cell:
            self.cell, self.line = cell, ProgressLine()
            print("\n" if sys.stderr.isatty() else "", cell, sep="", file=sys.stderr)
        self.line(done, total)


def print_score(scored: Score) -> None:
    """Prints the main numbers in percent, what AP50 is lost to, what strict rules make of the files, and warnings."""
    benchmark = BENCHMARKS[scored.protocol]
    rules = "official rules" if benchmark.official else "our own rules"
    print(f"{scored.protocol}, {rules}, {scored.seconds:.1f} s, in percent")
    _print_table(benchmark, scored.numbers)
    for line in benchmark.remarks(scored.numbers):
        print(line)
    print("AP50 lost to " + ", ".join(f"{kind} {100 * scored.errors[kind]:.1f}" for kind in KINDS))
    for warning, times in scored.warnings.items():
        print(f"warning: {times} × {warning}")
    if scored.refusal:
        print(f"strict rules refuse the files: {scored.refusal}")
    for name, (official, strict) in scored.differing().items():
        if "/cat/" not in name:
            print(f"by strict rules {name} is {strict:.6f}, not {official:.6f}")


def print_results(results: Sequence[CellResult]) -> None:
    """Prints a line per cell."""
    for result in results:
        name = f"{result.checkpoint}, {result.dataset}, {result.ablation}"
        if result.status == "failed":
            print(f"{name}: failed: {result.error}")
        else:
            benchmark = BENCHMARKS[result.protocol]
            headline = [
                f"{benchmark.columns.get(number, number)} {_percent(benchmark, result.numbers, number, 1)}"
                for number in benchmark.headline
            ]
            print(f"{name}: {', '.join(headline)}")


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
