"""What all jobs share: options from YAML files and the command line, errors in one line, exit codes."""

import difflib
import os
import re
import signal
import sys
import time
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib import import_module
from itertools import chain, pairwise, takewhile
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

T = TypeVar("T", bound=Any)

LOG_EVERY, REWRITE_EVERY = 10.0, 0.1
"""Seconds between progress lines: where the output is no terminal, and where it is one."""

_NO_OPTION = re.compile(r"unrecognized arguments: (--[\w.-]+)|(?:Group '([\w.]+)'.*)?[Oo]ption '([\w.]+)'")
_IN_CLASS = re.compile(r"Problem with given class_path '([\w.]+)': (.*?)(?: - Expected a (?:<class ')?NoneType.*)?$")
_ONE_OF = re.compile(r"Expected a \S*Literal\[(.*)\]\. Got value: (.*)")
_BAD_VALUE = re.compile(r'Parser key "([\w.]+)": (.*)')


def new_parser(job: str, description: str) -> ArgumentParser:
    """A parser without options.

    Args:
        job: name of its module.
        description: what it does, shown as it is.
    """
    return ArgumentParser(
        prog=f"python -m jobs.{job}",
        description=description,
        formatter_class=_Help,
        exit_on_error=False,
        allow_abbrev=False,
    )


def add_files(parser: ArgumentParser) -> None:
    """Lets options come from files, the later ones over the earlier, and those of the command line over all."""
    parser.add_argument("--config", action="config", help="YAML file with any of the options below; may be repeated")


def read_options(
    parser: ArgumentParser, arguments: Sequence[str] | None, commands: Sequence[ArgumentParser] = ()
) -> Namespace:
    """The options that are given, with defaults for the others, as objects of their types.

    Args:
        parser: whose they are.
        arguments: the command line; that of this process if None.
        commands: parsers of its subcommands.

    Raises:
        ValueError: names the option that is missing, has a value that does not fit, or does not exist, the nearest one
            that does, and the file that it stands in; names an output that would not outlive the job.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        given = parser.parse_args(arguments)
        found: Namespace = parser.instantiate(given)
    except ArgumentError as error:
        names = [*chain.from_iterable(_options(each) for each in commands or (parser,)), "print_config"]
        text = _explain(" ".join(str(error).split()), names)
        file = _file_at_fault(parser, arguments, str(error))
        raise ValueError(f"{file}: {text}" if file and file not in text else text) from error
    for name, value in given.items():
        if name.rpartition(".")[2] in ("output", "sheet") and value:
            _check_output(name, value)
    return found


def read_config(job: str, description: str, kind: type[T], arguments: Sequence[str] | None) -> T:
    """The config of a job that has no options but its fields; raises as `read_options`."""
    parser = new_parser(job, description)
    add_files(parser)
    parser.add_class_arguments(kind)
    options = read_options(parser, arguments)
    config: T = kind(**{field.name: options[field.name] for field in fields(kind)})
    return config


def _check_output(name: str, output: str) -> None:
    """A job submitted to a cluster runs in Ray's copy of the working folder, which is removed some time after it."""
    if "://" not in output and "working_dir_files" in Path(output).absolute().parts:
        raise ValueError(
            f"{name}: {output} is in the cluster's copy of the working folder, which goes with the job; "
            "give a whole path that all machines see, or s3://"
        )


def check_local(name: str, output: str) -> None:
    """Refuses an output that is not in a local folder, for jobs that can do no other.

    Raises:
        ValueError: names the option.
    """
    if "://" in output:
        raise ValueError(f"{name}: {output} is not a local path; write it locally, then upload it")


class _Help(DefaultHelpFormatter):
    """Leaves the lines of a description as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text.strip()


def _explain(text: str, names: Sequence[str], prefix: str = "") -> str:
    """What jsonargparse says, in words of users.

    Args:
        text: what it says, in one line.
        names: options that there are.
        prefix: of the option that they are parts of.
    """
    if found := _BAD_VALUE.fullmatch(text):
        if inner := _IN_CLASS.search(found[2]):
            return _explain(inner[2], _names(inner[1]), f"{prefix}{found[1]}.")
        return f"{prefix}{found[1]}: {_explain_value(found[2])}"
    found = _NO_OPTION.search(text)
    if text == "Unexpected config:":
        return "has no options in it"
    if not found:
        return f"{prefix.removesuffix('.')}: {text}" if prefix else text
    name = found[1].removeprefix("--") if found[1] else ".".join(filter(None, found.groups()[1:]))
    near = difflib.get_close_matches(name.replace("-", "_"), names, 1)
    return f"{prefix}{name}: no such option" + (f"; did you mean {prefix}{near[0]}?" if near else "; see --help")


def _explain_value(text: str) -> str:
    if found := _ONE_OF.fullmatch(text):
        choices = re.findall(r"'([^']*)'", found[1])
        near = difflib.get_close_matches(found[2], choices, 1)
        expected = " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))
        return f"expected {expected}, got {found[2]}" + (f"; did you mean {near[0]}?" if near else "")
    plain = re.sub(r"<class '([\w.]+)'>", r"\1", text).replace("typing.", "")
    return re.sub(r"Expected an? (.*)\. Got value: (.*)", r"expected \1, got \2", plain)


def _names(class_path: str) -> list[str]:
    """Options that stand for a class."""
    module, _, name = class_path.rpartition(".")
    parser = ArgumentParser()
    try:
        parser.add_class_arguments(getattr(import_module(module), name))
    except (ImportError, AttributeError):  # a class that somebody made up
        return []
    return _options(parser)


def _options(parser: ArgumentParser) -> list[str]:
    """Names of options and of groups of them."""
    names = parser.get_defaults().keys()
    parts = [name.split(".") for name in names]
    return list(dict.fromkeys(".".join(each[:depth]) for each in parts for depth in range(1, len(each) + 1)))


def _file_at_fault(parser: ArgumentParser, arguments: Sequence[str], error: str) -> str | None:
    """The file of options that has the same error on its own."""
    commands = list(takewhile(lambda word: not word.startswith("-"), arguments))
    files = [value for option, value in pairwise(arguments) if option == "--config"]
    files += [option.removeprefix("--config=") for option in arguments if option.startswith("--config=")]
    for file in files:
        try:
            parser.parse_args([*commands, "--config", file])
        except ArgumentError as own:
            if str(own) == error:
                return file
    return None


def run_job(job: str, work: Callable[[], int], *, interrupted: str) -> int:
    """Does a job's work.

    Args:
        job: its name, for errors.
        work: the work, which returns the exit code.
        interrupted: what to say after an interruption.

    Returns:
        The exit code: that of the work; 1 if it broke off, 2 for bad input, 75 if it was interrupted.
    """
    try:
        return work()
    except ValueError as error:
        code, text = 2, f"error: {' '.join(str(error).split())}"
    except OSError as error:
        code, text = 1, f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}"
    except RuntimeError as error:
        code, text = 1, f"error: {error}"
    except KeyboardInterrupt:
        code, text = os.EX_TEMPFAIL, f"interrupted; {interrupted}"
    line_end = "\n" if sys.stderr.isatty() else ""  # of a progress line
    print(f"{line_end}{job}: {text}", file=sys.stderr)
    return code


class ProgressCount:
    """How far a job is: one line that is written over in a terminal, log lines elsewhere.

    Args:
        what: is counted.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Shows it, if it is time."""
        now, terminal, end = time.monotonic(), sys.stderr.isatty(), done >= total
        if now - self.last >= (REWRITE_EVERY if terminal else LOG_EVERY) or (terminal and end):
            self.last = now
            line = f"{done}/{total} {self.what}"
            print(
                f"\r{line} " if terminal else line,
                end="" if terminal and not end else "\n",
                file=sys.stderr,
                flush=True,
            )


def print_left_out(job: str, video_ids: Sequence[str]) -> None:
    """Says which videos have embeddings of another model, if there are any."""
    if video_ids:
        some = ", ".join(video_ids[:3]) + (", …" if len(video_ids) > 3 else "")
        print(
            f"{job}: {len(video_ids)} videos were labelled with another model and are left out: {some}", file=sys.stderr
        )


def start(main: Callable[[], int]) -> NoReturn:
    """Runs a job as the process's own: a scheduler's SIGTERM is an interruption, as Ctrl-C is."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
