"""Two commits by what users run: `python -m tests.benchmarks.commits BEFORE [AFTER]`, half an hour on two cores.

Both run the same commands by turns, with the same data, the same checkpoint, which is BEFORE's built-in model, and the
installed libraries. CPU time is that of the whole machine, which has to be idle; of the runs of a command, the one with
the least is shown.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from tests.benchmarks.evaluation import draw_video
from tests.benchmarks.evaluation_files import write
from tests.benchmarks.pipeline import repeat

GIT = shutil.which("git") or "git"
SAMPLE_S = 2.0


@dataclass(frozen=True)
class Command:
    """What is run, with the name of an output that is removed before."""

    name: str
    words: tuple[str, ...]
    output: str | None = None


@dataclass(frozen=True, order=True)
class Cost:
    """CPU time, duration, and memory of all processes at its largest, without what they share."""

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
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # each process would compile what it imports
    start, before, most = time.perf_counter(), _busy_s(), 0.0
    words = [sys.executable, "-m", *command.words]
    process = psutil.Popen(words, cwd=commit, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        most = max(most, _memory_mb(process))
        with suppress(psutil.TimeoutExpired):
            process.wait(SAMPLE_S)
    assert process.returncode == 0, process.stderr.read().decode()
    wall = time.perf_counter() - start
    time.sleep(2)  # for what it leaves behind to end
    return Cost(_busy_s() - before, wall, most)


def _busy_s() -> float:
    """Returns the time for which the machine's cores have been busy since it was started."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def _memory_mb(process: psutil.Process) -> float:
    """Returns the memory of a process and those that it has started."""
    total = 0
    with suppress(psutil.Error):  # it has just ended
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += each.memory_full_info().uss
    return total / 1e6


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
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with checkout(options.before) as before, checkout(options.after) as after, tempfile.TemporaryDirectory() as folder:
        print(f"{'':<30}{'CPU s':>16}{'ratio':>8}{'wall s':>16}{'ratio':>8}{'MB':>14}   load")
        for command in commands(Path(folder), before / "openvis_model/built_in_model"):
            load = os.getloadavg()[0]
            costs = [(cost(command, before), cost(command, after)) for _ in range(options.rounds)]
            old, new = min(each for each, _ in costs), min(each for _, each in costs)
            print(
                f"{command.name:<30}{old.cpu_s:>7.1f} →{new.cpu_s:>7.1f}{old.cpu_s / new.cpu_s:>6.2f} ×"
                f"{old.wall_s:>7.1f} →{new.wall_s:>7.1f}{old.wall_s / new.wall_s:>6.2f} ×"
                f"{old.mb:>6.0f} →{new.mb:>6.0f}{load:>7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
