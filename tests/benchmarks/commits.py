"""Two commits, part by part and by what users run: `python -m tests.benchmarks.commits BEFORE [AFTER]`.

Both do the same by turns, with the same data, the same checkpoint, which is BEFORE's built-in model, and the installed
libraries. First comes what `commit_measures` measures, then commands. The CPU time of a command is that of the whole
machine, which has to be idle; of its runs, the one with the least is shown. Below a scoring command stands the official
tool with the same files; that of BURST needs `--trackeval`, as in `evaluation_files`. With two rounds, it takes an hour
on two cores; `--only WORD ...` does the lines that have one of the words, of which some use the output of those above.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from tests.benchmarks.commit_measures import Row
from tests.benchmarks.evaluation import draw_video
from tests.benchmarks.evaluation_files import CATEGORIES, TRACKEVAL, write
from tests.benchmarks.pipeline import repeat

GIT = shutil.which("git") or "git"
SAMPLE_S, ALONE_S = 2.0, 0.3
"""How often memory is read, seconds; the second one while a command has started no other process."""

MEASURES = (
    ("proposals", "resnet50"),
    ("proposals", "swin_tiny"),
    ("inst_clip", ""),
    ("miniature", "CHECKPOINT"),
    ("tracker", ""),
    ("planning", ""),
    ("pipeline", ""),
)
SHORT = (60, 300)
MINUTES = 20


@dataclass(frozen=True)
class Command:
    """What is run.

    Attributes:
        name: what the table calls it.
        words: the module and its options.
        output: what is removed before.
        official: another program that does the same.
        once: whether one round is enough.
    """

    name: str
    words: tuple[str, ...]
    output: str | None = None
    official: tuple[str, ...] = ()
    once: bool = False


@dataclass(frozen=True, order=True)
class Cost:
    """CPU time, duration, and memory of all processes at its largest, without what they share."""

    cpu_s: float
    wall_s: float
    mb: float


def commands(folder: Path, checkpoint: Path, trackeval: str | None) -> Iterator[Command]:
    """Writes the data and yields the commands."""
    scene = SceneConfig(frames=8)
    few, many = (write_split(folder / str(count), "valid", count, 0, scene).path for count in (1, SHORT[0]))
    (folder / "more").mkdir()
    for turn in range(SHORT[1] // SHORT[0]):
        for video in (many / "videos").iterdir():
            (folder / "more" / f"{turn}_{video.name}").hardlink_to(video)
    piece = write_split(folder / "piece", "valid", 1, 0, SceneConfig(frames=48)).path
    minute, long = folder / "minute", folder / "minutes"
    for source, minutes in ((minute, 1), (long, MINUTES)):
        source.mkdir()
        repeat(next((piece / "videos").iterdir()), 10 * minutes, source / "long.mp4")
    names = str(many / "vocabulary.txt")
    (folder / "ten.txt").write_text("\n".join(Path(names).read_text().splitlines()[:10]))

    def label(source: Path, output: str) -> tuple[str, ...]:
        return ("jobs.label", "--input", str(source), "--vocabulary", names, "--output", output, *model)

    model = ("--checkpoint", str(checkpoint))
    labels = str(folder / "labels")
    yield Command("jobs.label --help", ("jobs.label", "--help"))
    yield Command("label one video of 8 frames", label(few / "videos", labels), labels)
    more = f"label {SHORT[1]} videos of 8 frames"
    yield Command(more, label(folder / "more", str(folder / "of_more")), str(folder / "of_more"))
    yield Command(f"label {SHORT[0]} videos of 8 frames", label(many / "videos", labels), labels)
    yield Command("search them", ("jobs.search", "--labels", labels, "--text", "red striped star", *model))
    renamed = ("jobs.relabel", "--labels", labels, "--output", str(folder / "renamed"))
    ten = ("--vocabulary", str(folder / "ten.txt"))
    yield Command("rename them", (*renamed, *ten, *model), str(folder / "renamed"))
    yield Command("label a minute, 480 frames", label(minute, str(folder / "long")), str(folder / "long"))
    hours = str(folder / "hours")
    yield Command(f"label {MINUTES} minutes", label(long, hours), hours, once=True)
    drawn = [draw_video(seed) for seed in range(30)] * 4
    for protocol in CATEGORIES:
        place = Path(tempfile.mkdtemp(dir=folder))
        truth, predictions = write(place, protocol, drawn)
        files = ("--ground_truth", truth, "--predictions", predictions)
        official: tuple[str, ...] = (
            sys.executable,
            "-m",
            "tests.benchmarks.evaluation_files",
            "--official",
            protocol,
            *files[1::2],
        )
        if protocol == "burst":
            official = (trackeval, "-c", TRACKEVAL, str(place)) if trackeval else ()
        words = ("jobs.evaluate", "score", "--protocol", protocol, *files)
        yield Command(f"score {protocol}", words, official=official)


def environment(commit: Path) -> dict[str, str]:
    """Returns the variables of a process that uses the code of a commit."""
    variables = os.environ | {"PYTHONPATH": str(commit), "RAY_ADDRESS": "local"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # each process would compile what it imports
    return variables


def measure(name: str, argument: str, commit: Path) -> list[Row]:
    """Returns what `commit_measures` measures with the code of a commit."""
    script = str(Path(__file__).with_name("commit_measures.py"))
    words = [sys.executable, "-P", script, name, argument]
    said = subprocess.run(words, cwd=commit, env=environment(commit), check=True, stdout=subprocess.PIPE).stdout
    return [tuple(row) for row in json.loads(said.splitlines()[-1])]


def cost(words: Sequence[str], output: str | None, commit: Path) -> Cost:
    """Runs a program with the code of a commit."""
    if output:
        shutil.rmtree(output, ignore_errors=True)
    start, before, most = time.perf_counter(), _busy_s(), 0.0
    variables = environment(commit)
    process = psutil.Popen(words, cwd=commit, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None:
        most = max(most, _memory_mb(process))
        with suppress(psutil.TimeoutExpired):
            process.wait(SAMPLE_S if process.children() else ALONE_S)
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


def line(name: str, old: Cost, new: Cost) -> str:
    """Formats a line of the table."""
    return (
        f"{name:<66}{old.cpu_s:>8.1f} →{new.cpu_s:>8.1f}{old.cpu_s / new.cpu_s:>6.2f} ×"
        f"{old.wall_s:>7.1f} →{new.wall_s:>7.1f}{old.wall_s / new.wall_s:>6.2f} ×"
        f"{old.mb:>6.0f} →{new.mb:>6.0f}{os.getloadavg()[0]:>7.1f}"
    )


def measured(name: str, argument: str, before: Path, after: Path, rounds: int) -> Iterator[str]:
    """Yields the lines of what `commit_measures` measures, by turns."""
    turns = [(measure(name, argument, before), measure(name, argument, after)) for _ in range(rounds)]
    for number, (what, _, more) in enumerate(turns[0][0]):
        choose = max if more else min
        old, new = (choose(turn[side][number][1] for turn in turns) for side in (0, 1))
        ratio = new / old if more else old / new
        yield f"{what:<66}{old:>8.2f} →{new:>8.2f}{ratio:>6.2f} ×{'':>46}{os.getloadavg()[0]:>7.1f}"


def run(command: Command, before: Path, after: Path, rounds: int) -> tuple[Cost, Cost, list[str]]:
    """Runs a command by turns; returns its costs and its lines."""
    words = (sys.executable, "-m", *command.words)
    turns = [
        [cost(words, command.output, before), cost(words, command.output, after)]
        + ([cost(command.official, None, after)] if command.official else [])
        for _ in range(1 if command.once else rounds)
    ]
    old, new, *official = (min(costs) for costs in zip(*turns, strict=True))
    lines = [line(command.name, old, new)]
    return old, new, lines + [line("  the official tool instead of the first", each, new) for each in official]


def main() -> None:
    """Prints the table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after", nargs="?", default="HEAD")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trackeval", metavar="PYTHON", help="interpreter that has TrackEval")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="part of a line's name")
    options = parser.parse_args()
    costs: dict[str, tuple[Cost, Cost]] = {}
    with checkout(options.before) as before, checkout(options.after) as after, tempfile.TemporaryDirectory() as folder:
        built_in = before / "openvis_model/built_in_model"
        trees = (before, after, options.rounds)
        print(f"{'':<66}{'CPU s':>18}{'ratio':>8}{'wall s':>16}{'ratio':>8}{'MB':>14}   load", flush=True)
        for name, argument in MEASURES:
            if any(word in f"{name} {argument}" for word in options.only):
                for text in measured(name, str(built_in) if argument == "CHECKPOINT" else argument, *trees):
                    print(text, flush=True)
        for command in commands(Path(folder), built_in, options.trackeval):
            if any(word in command.name for word in options.only):
                old_cost, new_cost, lines = run(command, *trees)
                costs[command.name] = (old_cost, new_cost)
                print("\n".join(lines), flush=True)
        few, many = (costs.get(f"label {count} videos of 8 frames") for count in SHORT)
        if few and many:
            old, new = (1e3 * (b.cpu_s - a.cpu_s) / (SHORT[1] - SHORT[0]) for a, b in zip(few, many, strict=True))
            print(f"{'a short video, model included: ms of CPU':<66}{old:>8.0f} →{new:>8.0f}{old / new:>6.2f} ×")


if __name__ == "__main__":
    main()
