import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

import jobs.compact
import jobs.evaluate
import jobs.search
from jobs.command import ProgressCount, read_config, run_job


@dataclass(frozen=True, kw_only=True)
class Inner:
    """How.

    Attributes:
        max_gap: frames.
        way: of doing it.
    """

    max_gap: int = 3
    way: Literal["fast", "slow"] = "fast"


@dataclass(frozen=True, kw_only=True)
class Config:
    """A job.

    Attributes:
        input: where from.
        batch_size: how many.
        kind: which.
        tracker: how.
        more: if at all.
    """

    input: str
    batch_size: int = 8
    kind: Literal["a", "b"] = "a"
    tracker: Inner = field(default_factory=Inner)
    more: Inner | None = None


def parse(*arguments: str) -> Config:
    return read_config("test", "What it does.", Config, arguments)


def test_options_come_from_files_and_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("input: x\nbatch_size: 4\ntracker: {max_gap: 5}\n")
    (tmp_path / "b.yaml").write_text("batch_size: 5\n")
    files = ("--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml"))
    assert parse(*files, "--kind", "b") == Config(input="x", batch_size=5, kind="b", tracker=Inner(max_gap=5))
    assert parse(*files, "--batch_size", "6", "--tracker.max_gap", "7").tracker.max_gap == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--inptu", "x"), "inptu: no such option; did you mean input?"),
        (("--input", "x", "--batch-size", "3"), "batch-size: no such option; did you mean batch_size?"),
        (
            ("--input", "x", "--tracker.max_gaps", "3"),
            "tracker.max_gaps: no such option; did you mean tracker.max_gap?",
        ),
        (("--input", "x", "--zzz"), "zzz: no such option; see --help"),
        (("--input", "x", "--print-config"), "print-config: no such option; did you mean print_config?"),
        (("--input", "x", "--batch_size", "many"), "batch_size: expected int, got many"),
        (("--input", "x", "--tracker.max_gap", "x"), "tracker.max_gap: expected int, got x"),
        (("--input", "x", "--kind", "c"), "kind: expected a or b, got c"),
        ((), "the following arguments are required: input"),
    ],
)
def test_what_is_wrong_is_named_with_the_remedy(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared below
        parse(*arguments)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("inptu: x", "inptu: no such option; did you mean input?"),
        ("input: x\ntracker: {max_gaps: 3}", "tracker.max_gaps: no such option; did you mean tracker.max_gap?"),
        ("input: x\nbatch_size: many", "batch_size: expected int, got many"),
        ("input: [", "Problems parsing config: "),
        ("", "has no options in it"),
        ("input: x\nmore: {maxgap: 3}", "more.maxgap: no such option; did you mean more.max_gap?"),
        ("input: x\nmore: {max_gap: x}", "more.max_gap: expected int, got x"),
        ("input: x\nmore: {way: fats}", "more.way: expected fast or slow, got fats; did you mean fast?"),
    ],
)
def test_so_it_is_in_files(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared below
        parse("--config", str(tmp_path / "a.yaml"))
    assert str(error.value).startswith(f"{tmp_path}/a.yaml: {message}")


def test_help_and_the_config_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for option, text in (("--help", "how many. (type: int, default: 8)"), ("--print_config", "batch_size: 8")):
        with pytest.raises(SystemExit) as stop:
            parse("--input", "x", option)
        assert stop.value.code == 0
        assert text in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ValueError("output: is\nof another"), 2, "label: error: output: is of another"),
        (RuntimeError("it broke off"), 1, "label: error: it broke off"),
        (OSError(28, "No space left on device", "/a"), 1, "label: error: /a: No space left on device"),
        (KeyboardInterrupt(), os.EX_TEMPFAIL, "label: interrupted; run it again"),
    ],
)
def test_how_a_job_ends(error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise error

    assert run_job("label", work, interrupted="run it again") == code
    assert capsys.readouterr().err == f"{told}\n"
    assert run_job("label", lambda: 3, interrupted="run it again") == 3


def test_progress_is_a_line_in_a_terminal_and_log_lines_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("jobs.command.time.monotonic", lambda: now)
    count = ProgressCount("videos")
    for now in (1.0, 10.5, 11.0, 21.0):
        count(int(now), 30)
    assert capsys.readouterr().err == "10/30 videos\n21/30 videos\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for now in (21.05, 22.0, 22.05):
        count(int(now), 22)
    assert capsys.readouterr().err == "\r22/22 videos \n\r22/22 videos \n"


def test_an_output_that_goes_with_the_job_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `ray job submit --working-dir .` runs it."""
    folder = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert jobs.compact.main(["--output", "labels/"]) == 2
    assert "output: labels/ is in the cluster's copy of the working folder" in capsys.readouterr().err
    (folder / "sweep.yaml").write_text("output: runs\ndatasets: []\ncheckpoints: []\n")
    assert jobs.evaluate.main(["run", "--config", "sweep.yaml"]) == 2
    assert "output: runs is in the cluster's copy of the working folder" in capsys.readouterr().err
    assert jobs.search.main(["--labels", str(tmp_path), "--text", "star", "--sheet", "found.png"]) == 2
    assert "sheet: found.png is in the cluster's copy of the working folder" in capsys.readouterr().err
    assert jobs.compact.main(["--output", str(tmp_path)]) == 2
    assert "has no labels" in capsys.readouterr().err
