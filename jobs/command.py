"""What all jobs share: cheap checks of options, errors in one line, exit codes."""

import glob
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn


def check_kept(name: str, output: str | None) -> None:
    """Refuses an output that would not outlive the job.

    A job submitted to a cluster runs in Ray's copy of the working folder, which Ray removes some time after the job.

    Args:
        name: the option.
        output: its value, a path or URI.

    Raises:
        ValueError: names the option.
    """
    if output and "://" not in output and "working_dir_files" in Path(output).absolute().parts:
        raise ValueError(
            f"{name}: {output} is in the cluster's copy of the working folder, which goes with the job; "
            "give a whole path that all machines see, or s3://"
        )


def check_present(name: str, path: str | None) -> None:
    """Checks that a local input exists, before anything heavy is imported; a glob or URI is checked when it is read.

    Args:
        name: the option.
        path: its value.

    Raises:
        ValueError: names the option.
    """
    if path is not None and "://" not in path and not glob.has_magic(path) and not os.path.exists(path):
        raise ValueError(f"{name}: {path} does not exist; correct the path")


def check_local(name: str, output: str) -> None:
    """Refuses an output that is not in a local folder, for jobs that can do no other.

    Raises:
        ValueError: names the option.
    """
    if "://" in output:
        raise ValueError(f"{name}: {output} is not a local path; write it locally, then upload it")


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
