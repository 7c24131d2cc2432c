from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from jobs.options import read_command, read_config


@dataclass(frozen=True, kw_only=True)
class Inner:
    """How.

    Attributes:
        max_gap: frames.
        way: of doing it.
    """

    max_gap: int = 3
    way: Literal["fast", "slow"] = "fast"

    def __post_init__(self) -> None:
        if self.max_gap < 0:
            raise ValueError(f"max_gap: expected 0 or more, got {self.max_gap}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A job.

    Attributes:
        input: where from.
        batch_size: how many.
        kind: which.
        tracker: how.
        more: if at all.
        ratio: of both.
        sizes: of all.
        parts: any number.
        either: one or any number.
    """

    input: str
    batch_size: int = 8
    kind: Literal["a", "b"] = "a"
    tracker: Inner = field(default_factory=Inner)
    more: Inner | None = None
    ratio: float | None = None
    sizes: tuple[int, ...] = (1, 2)
    parts: list[Inner] = field(default_factory=list)
    either: Inner | tuple[Inner, ...] | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {self.batch_size}")


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
        (("--input", "x", "--batch_size", "0"), "batch_size: expected at least 1, got 0"),
        (("--kind", "b"), "input: missing; give it as an option or in a file"),
        (("--input",), "--input: expected one argument"),
        (("x",), "x: no such option; see --help"),
        (("--input", "x", "--config", "absent.yaml"), "config: cannot read absent.yaml: No such file or directory"),
        (("--input", "x", "--sizes", "[1, a]"), "sizes[1]: expected int, got a"),
        (
            ("--input", "x", "--parts", "[{max_gap: 1, wya: slow}]"),
            "parts[0].wya: no such option; did you mean parts[0].way?",
        ),
        (
            ("--input", "x", "--parts", "[{way: fats}]"),
            "parts[0].way: expected fast or slow, got fats; did you mean fast?",
        ),
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
        ("input: [", "is not YAML: while parsing a flow node"),
        pytest.param("[" * 9_000 + "]" * 9_000, "is nested too deeply", id="nested"),
        ("1: 2", "1: no such option"),
        ("input: x\ntracker: {on: 3}", "tracker.on: no such option"),
        ("input: 2020-99-99", "is not YAML: month must be in 1..12"),
        pytest.param(f"batch_size: {'1' * 5_000}", "is not YAML: Exceeds the limit", id="digits"),
        ("input: !!python/object/apply:os.getcwd []", "is not YAML: could not determine a constructor"),
        ("input: x\ntracker: &loop {max_gap: *loop}", "tracker.max_gap: expected int, got {"),
        ("", "has no options"),
        ("input: x\ntracker: 5", "tracker: expected options, got 5"),
        ("input: x\nbatch_size: 0", "batch_size: expected at least 1, got 0"),
        ("input: x\nmore: {max_gap: -1}", "more.max_gap: expected 0 or more, got -1"),
        ("input: x\nmore: {maxgap: 3}", "more.maxgap: no such option; did you mean more.max_gap?"),
        ("input: x\nmore: {max_gap: x}", "more.max_gap: expected int, got x"),
        ("input: x\nmore: {way: fats}", "more.way: expected fast or slow, got fats; did you mean fast?"),
        ("input: x\neither: {wya: fast}", "either.wya: no such option; did you mean either.way?"),
        ("input: x\neither: {way: fats}", "either.way: expected fast or slow, got fats; did you mean fast?"),
        ("input: x\neither: {max_gap: -1}", "either.max_gap: expected 0 or more, got -1"),
        ("input: x\neither: [{}, {wya: fast}]", "either[1].wya: no such option; did you mean either[1].way?"),
        ("input: x\neither: [{}, {max_gap: x}]", "either[1].max_gap: expected int, got x"),
        ("input: x\neither: [{}, {max_gap: -1}]", "either[1].max_gap: expected 0 or more, got -1"),
        ("input: x\neither: 5", "either: expected options or list of options or null, got 5"),
        ("input: x\neither: [{}, 5]", "either[1]: expected options, got 5"),
    ],
)
def test_so_it_is_in_files(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared below
        parse("--config", str(tmp_path / "a.yaml"))
    assert str(error.value).startswith(f"{tmp_path}/a.yaml: {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("input: x\nbatch_size: 1\nkind: b\nbatch_size: 2", "line 4: batch_size is given twice; remove one of the two"),
        ("input: x\ntracker:\n  max_gap: 1\n  max_gap: 2", "line 4: max_gap is given twice; remove one of the two"),
    ],
)
def test_an_option_that_a_file_gives_twice_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - compared below
        parse("--config", str(tmp_path / "a.yaml"))
    assert str(error.value) == f"{tmp_path}/a.yaml {message}"


def test_an_option_given_twice_within_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="^parts: expected list of options, got "):
        parse("--input", "x", "--parts", "[{max_gap: 1, max_gap: 2}]")


def test_a_mapping_may_be_merged_into_others(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("input: x\ntracker: &base {max_gap: 3}\nmore: {<<: *base, max_gap: 4}")
    config = parse("--config", str(tmp_path / "a.yaml"))
    assert (config.tracker.max_gap, config.more) == (3, Inner(max_gap=4))


@pytest.mark.parametrize("text", ["1_8", "1:30", "010", "yes", "true"])
def test_what_only_looks_like_a_number_is_refused(text: str, tmp_path: Path) -> None:
    """YAML 1.1 takes these for 18, 90, 8, 1 and 1."""
    (tmp_path / "a.yaml").write_text(f"input: a\nratio: {text}\n")
    with pytest.raises(ValueError, match="^ratio: "):
        parse("--input", "a", "--ratio", text)
    with pytest.raises(ValueError, match="ratio: "):
        parse("--config", str(tmp_path / "a.yaml"))


def test_paths_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In files and after `=`, no shell expands them, and a folder named ~ would be made."""
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "a.yaml").write_text("input: ~/videos\n")
    assert parse("--config", str(tmp_path / "a.yaml")).input == parse("--input=~/videos").input == "/home/me/videos"
    assert [parse(f"--input={text}").input for text in ("a~/b", "~ 3", "x/~")] == ["a~/b", "~ 3", "x/~"]


def test_help_and_the_config_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for option, text in (("--help", "how many (type: int, default: 8)"), ("--print_config", "batch_size: 8")):
        with pytest.raises(SystemExit) as stop:
            parse("--input", "x", option)
        assert stop.value.code == 0
        assert text in capsys.readouterr().out


def test_values_of_all_kinds(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("more: {max_gap: 4}\nratio: 1e-3\nparts: [{way: slow}]\n")
    file = ("--config", str(tmp_path / "a.yaml"))
    config = parse(*file, "--input", "5", "--sizes", "[3]", "--more.way", "slow", "--tracker", "{max_gap: 9}")
    assert config == Config(
        input="5",
        tracker=Inner(max_gap=9),
        more=Inner(max_gap=4, way="slow"),
        ratio=1e-3,
        sizes=(3,),
        parts=[Inner(way="slow")],
    )
    assert parse(*file, "--input", "x", "--more", "null", "--ratio", "null").more is None


def test_options_or_a_list_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("input: x\neither: [{way: slow}, {max_gap: 1}]\n")
    file = ("--config", str(tmp_path / "a.yaml"))
    assert parse(*file).either == (Inner(way="slow"), Inner(max_gap=1))
    assert parse(*file, "--either.max_gap", "2").either == Inner(max_gap=2)
    assert parse(*file, "--either", "[{max_gap: 2}]").either == (Inner(max_gap=2),)


def test_defaults_of_a_config_in_a_config_stay() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Outer:
        """A job.

        Attributes:
            tracker: how.
        """

        tracker: Inner = field(default_factory=lambda: Inner(max_gap=7))

    assert read_config("test", "", Outer, ["--tracker.way", "slow"]).tracker == Inner(max_gap=7, way="slow")


def test_what_is_printed_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--input", "x", "--more.max_gap", "4", "--print_config")
    (tmp_path / "a.yaml").write_text(capsys.readouterr().out)
    assert parse("--config", str(tmp_path / "a.yaml")) == Config(input="x", more=Inner(max_gap=4))


def test_a_job_with_commands(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = {"one": Config, "two": Inner}
    assert read_command("test", "What it does.", kinds, ["two", "--max_gap", "4"]) == Inner(max_gap=4)
    with pytest.raises(ValueError, match="^command: expected one or two, got three$"):
        read_command("test", "What it does.", kinds, ["three"])
    with pytest.raises(SystemExit):
        read_command("test", "What it does.", kinds, ["--help"])
    assert capsys.readouterr().out.endswith("python -m jobs.test one --help\npython -m jobs.test two --help\n")


@dataclass(frozen=True, kw_only=True)
class Switched:
    """A job that can be switched.

    Attributes:
        again: whether once more.
        name: what for.
        tracker: how.
    """

    again: bool = False
    name: str = ""
    tracker: Inner = field(default_factory=Inner)


def test_a_switch_needs_no_value() -> None:
    def switched(*arguments: str) -> Switched:
        return read_config("test", "What it does.", Switched, arguments)

    assert switched("--again", "--name", "x") == switched("--again", "true", "--name", "x")
    assert switched("--again").again
    assert not switched("--again", "false").again
    with pytest.raises(ValueError, match="again: expected bool, got perhaps"):
        switched("--again", "perhaps")


def test_options_that_suit_others_fill_in_for_missing_ones(tmp_path: Path) -> None:
    def suited(given: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        return "suited.yaml", {"again": True, "tracker": {"way": "slow", "max_gap": len(given["name"]) - 2}}

    def read(*arguments: str) -> Switched:
        return read_config("test", "What it does.", Switched, arguments, suited)

    file = tmp_path / "mine.yaml"
    file.write_text("tracker: {max_gap: 9}\nname: abcdef\n")
    assert read("--name", "abcdef") == Switched(again=True, name="abcdef", tracker=Inner(max_gap=4, way="slow"))
    assert read("--config", str(file), "--again", "false").tracker == Inner(max_gap=9, way="slow")
    with pytest.raises(ValueError, match=r"^suited\.yaml: tracker\.max_gap: expected 0 or more, got -1"):
        read("--name", "a")
