"""Measures labelling on this machine: the rate of each stage, what limits it, the options to give, and the cost.

python -m jobs.benchmark --checkpoint checkpoints/mine --video street.mp4 --fps 5

Every stage is measured by itself in this process, without Ray. On a CPU the whole model has two batches at once, as in
labelling, and may take less time than its parts, which have one. The exit code is 0, 1 if it failed, 2 for bad input,
75 if it was interrupted.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.command import check_local, check_present, run_job, start
from jobs.options import read_config
from jobs.progress import ProgressLine
from jobs.recipes import BenchmarkOptions, with_checkpoint

if TYPE_CHECKING:
    from pipelines.benchmark.run import BenchmarkResult


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    return run_job("benchmark", lambda: _benchmark(arguments), interrupted="nothing was written")


def _benchmark(arguments: list[str] | None) -> int:
    from pipelines.storage.objects import is_remote

    config = read_config("benchmark", __doc__, BenchmarkOptions, arguments)
    if config.video is not None:
        if is_remote(config.video):
            raise ValueError(f"video: {config.video} is in the cloud; download it and give the file")
        check_present("video", config.video)
    if config.output is not None:
        check_local("output", config.output)
        if Path(config.output).is_dir() or not Path(config.output).parent.is_dir():
            raise ValueError(f"output: {config.output} is a folder, or in none; give a JSON file in an existing folder")

    config = with_checkpoint(config)

    from pipelines.benchmark.run import run_benchmark

    line = ProgressLine()
    result = run_benchmark(config, lambda text: line.show(f"measuring {text} …", finished=False))
    line.show("measured", finished=True)
    print(table(result))
    if config.output is not None:
        Path(config.output).write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
        print(f"results: {config.output}")
    return 0


def table(result: "BenchmarkResult") -> str:
    """Formats the results for reading."""
    machine, advice = result.machine, result.advice
    height, width = result.size
    rows, columns = result.working_size
    lines = [
        f"{machine.name}, {machine.cores} cores, {machine.threads} threads, {result.device}, {result.precision}, "
        f"load {machine.load:.1f}",
        f"matrix products {machine.matmul_flops / 1e9:,.0f} GFLOP/s, copies {machine.copy_bytes / 1e9:,.1f} GB/s",
        f"{width} × {height}, seen by the networks at {columns} × {rows}, batches of {result.batch_size}",
        "",
        f"{'':<16}{'ms/frame':>10}{'frames/s':>10}{'GFLOP':>9}{'of what is possible':>21}",
    ]
    for stage in result.stages:
        share = f"{stage.floor_s(machine) / stage.frame_s:.0%}" if stage.flops else ""
        flops = f"{stage.flops / 1e9:.1f}" if stage.flops else ""
        lines.append(f"{stage.name:<16}{1e3 * stage.frame_s:>10.2f}{1 / stage.frame_s:>10.1f}{flops:>9}{share:>21}")
    lines.append(f"{'whole model':<16}{1e3 * result.model_s:>10.2f}{1 / result.model_s:>10.1f}")
    tried = ", ".join(f"{size}: {1e3 * taken:.1f} ms" for size, taken in result.batches.items())
    lines += [
        "",
        f"batch sizes, per frame: {tried}",
        f"this machine: {advice.frames_per_s:.1f} frames/s at best, limited by {advice.limit}",
    ]
    if advice.cores_per_gpu is not None:
        lines.append(f"cores that keep a GPU busy: {advice.cores_per_gpu:.1f}")
    options = " ".join(f"--{name} {value}" for name, value in advice.options.items())
    lines += [
        f"options for jobs.label: {options}",
        f"1,000 hours of such video: {advice.hours:,.0f} hours of this machine, {advice.cost:,.2f} at your prices",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    start(main)
