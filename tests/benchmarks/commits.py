"""Two commits by what users run: `python -m tests.benchmarks.commits BEFORE [AFTER]`, half an hour on two cores.

Both run the same commands by turns, with the same data, the same checkpoint, which is BEFORE's built-in model, and the
installed libraries. CPU time is that of all processes of a command; of each command, the run with the least is shown.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from tests.benchmarks.evaluation import draw_video
from tests.benchmarks.evaluation_files import write
from tests.benchmarks.pipeline import repeat

GIT = shutil.which("git") or "git"
ROUNDS = 3
SAMPLE_S = 0.05


@dataclass(frozen=True)
class Command:
    """What is run, with the name of an output that is removed before."""

    name: str
    words: tuple[str, ...]
    output: str | None = None


@dataclass(frozen=True, order=True)
class Cost:
    """Of all processes of a command; memory as it was at its largest, without what processes share."""

    cpu_s: float
    wall_s: float
    mb: float


def commands(folder: Path, checkpoint: Path) -> Iterator[Command]:
    """Writes the data and yields the commands."""
    scene = SceneConfig(frames=8)
    few, many = (write_split(folder / str(count), "valid", count, 0, scene).path for count in (1, 60))
    minute = folder / "minute"
    minute.mkdir()
    piece = write_split(folder / "piece", "valid", 1, 0, SceneConfig(frames=48)).path
    repeat(next((piece / "videos").iterdir()), 10, minute / "long.mp4")
    names = str(many / "vocabulary.txt")
    (folder / "ten.txt").write_text("\n".join(Path(names).read_text().splitlines()[:10]))

    def label(source: Path, output: str) -> tuple[str, ...]:
        return ("jobs.label", "--input", str(source), "--vocabulary", names, "--output", output, *model)

    model = ("--checkpoint", str(checkpoint))
    labels = str(folder / "labels")
    yield Command("jobs.label --help", ("jobs.label", "--help"))
    yield Command("label one video of 8 frames", label(few / "videos", labels), labels)
    yield Command("label 60 videos of 8 frames", label(many / "videos", labels), labels)
    yield Command("search them", ("jobs.search", "--labels", labels, "--text", "red striped star", *model))
    renamed = ("jobs.relabel", "--labels", labels, "--output", str(folder / "renamed"))
    ten = ("--vocabulary", str(folder / "ten.txt"))
    yield Command("rename them", (*renamed, *ten, *model), str(folder / "renamed"))
    yield Command("label a minute, 480 frames", label(minute, str(folder / "long")), str(folder / "long"))
    drawn = [draw_video(seed) for seed in range(30)] * 4
    for protocol in ("ytvis", "burst"):
        truth, predictions = write(Path(tempfile.mkdtemp(dir=folder)), protocol, drawn)
        files = ("--ground_truth", truth, "--predictions", predictions)
        yield Command(f"score {protocol}", ("jobs.evaluate", "score", "--protocol", protocol, *files))


def cost(command: Command, commit: Path) -> Cost:
    """Runs a command with the code of a commit."""
    if command.output:
        shutil.rmtree(command.output, ignore_errors=True)
    environment = os.environ | {"PYTHONPATH": str(commit), "RAY_ADDRESS": "local"}
    start, seen, most = time.perf_counter(), dict[int, float](), 0.0
    words = [sys.executable, "-m", *command.words]
    process = psutil.Popen(words, cwd=commit, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    number = 0
    while process.poll() is None:
        memory = 0
        for each in (process, *_children(process)):
            try:
                times = each.cpu_times()
                seen[each.pid] = times.user + times.system
                memory += each.memory_full_info().uss if number % 20 == 0 else 0
            except psutil.Error:  # it has just ended
                continue
        most, number = max(most, memory / 1e6), number + 1
        time.sleep(SAMPLE_S)
    assert process.returncode == 0, process.stderr.read().decode()
    return Cost(sum(seen.values()), time.perf_counter() - start, most)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A working tree of a commit, until the block ends."""
    folder = Path(tempfile.mkdtemp()) / "tree"
    subprocess.run([GIT, "worktree", "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([GIT, "worktree", "remove", "--force", str(folder)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after", nargs="?", default="HEAD")
    options = parser.parse_args()
    with checkout(options.before) as before, checkout(options.after) as after, tempfile.TemporaryDirectory() as folder:
        print(f"{'':<30}{'CPU s':>16}{'ratio':>8}{'wall s':>16}{'ratio':>8}{'MB':>14}   load")
        for command in commands(Path(folder), before / "openvis_model/built_in_model"):
            load = os.getloadavg()[0]
            costs = [(cost(command, before), cost(command, after)) for _ in range(ROUNDS)]
            old, new = min(each for each, _ in costs), min(each for _, each in costs)
            print(
                f"{command.name:<30}{old.cpu_s:>7.1f} →{new.cpu_s:>7.1f}{old.cpu_s / new.cpu_s:>6.2f} ×"
                f"{old.wall_s:>7.1f} →{new.wall_s:>7.1f}{old.wall_s / new.wall_s:>6.2f} ×"
                f"{old.mb:>6.0f} →{new.mb:>6.0f}{load:>7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
