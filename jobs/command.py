"""What all jobs share: options from YAML files and the command line, errors in one line, exit codes."""

import difflib
import os
import re
import signal
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

T = TypeVar("T", bound=Any)

_NO_OPTION = re.compile(r"unrecognized arguments: (--[\w.-]+)|(?:Group '([\w.]+)'.*)?[Oo]ption '([\w.]+)'")
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
        ValueError: names the option that is missing, has a value that does not fit, or does not exist, and then the
            nearest one that does; names an output that would not outlive the job.
    """
    try:
        given = parser.parse_args(arguments)
        found: Namespace = parser.instantiate(given)
    except ArgumentError as error:
        names = list(chain.from_iterable(each.get_defaults().keys() for each in commands or (parser,)))
        raise ValueError(_explain(" ".join(str(error).split()), names)) from error
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


class _Help(DefaultHelpFormatter):
    """Leaves the lines of a description as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text.strip()


def _explain(text: str, names: Sequence[str]) -> str:
    """What jsonargparse says, in words of users."""
    if found := _BAD_VALUE.fullmatch(text):
        plain = re.sub(r"<class '([\w.]+)'>", r"\1", found[2]).replace("typing.", "")
        return f"{found[1]}: " + re.sub(r"Expected an? (.*)\. Got value: (.*)", r"expected \1, got \2", plain)
    found = _NO_OPTION.search(text)
    if not found:
        return text
    name = found[1].removeprefix("--") if found[1] else ".".join(filter(None, found.groups()[1:]))
    near = difflib.get_close_matches(name.replace("-", "_"), names, 1)
    return f"{name}: no such option" + (f"; did you mean {near[0]}?" if near else "; see --help")


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
    except (OSError, RuntimeError) as error:
        code, text = 1, f"error: {error}"
    except KeyboardInterrupt:
        code, text = os.EX_TEMPFAIL, f"interrupted; {interrupted}"
    line_end = "\n" if sys.stderr.isatty() else ""  # of a progress line
    print(f"{line_end}{job}: {text}", file=sys.stderr)
    return code


def start(main: Callable[[], int]) -> NoReturn:
    """Runs a job as the process's own: a scheduler's SIGTERM is an interruption, as Ctrl-C is."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
