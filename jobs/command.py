"""What all jobs share: quick checks of options, errors in one line, exit codes."""

import glob
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_working = False


def check_address(name: str, value: str) -> None:
    """Refuses an address in the cloud that is no URI, which would be taken for a local folder.

    Raises:
        ValueError: names the option.
    """
    if found := re.match(r"(s3|gs|az|abfss|https?):/?(?!/)", value):
        rest = value[found.end() :]
        raise ValueError(f"{name}: {value} has too few slashes for {found[1]}; write {found[1]}://{rest}")


def check_kept(name: str, output: str | None) -> None:
    """Refuses an output that would not outlive the job.

    A job submitted to a cluster runs in Ray's copy of the working folder, which Ray removes some time after the job.

    Args:
        name: name of the option.
        output: value of the option, a path or URI.

    Raises:
        ValueError: names the option.
    """
    check_address(name, output or "")
    if output and "://" not in output and "working_dir_files" in Path(output).absolute().parts:
        raise ValueError(
            f"{name}: {output} is in the cluster's copy of the working folder, which is removed after the job; "
            "give an absolute path that all machines see, or one in the cloud"
        )


def check_present(name: str, path: str | None) -> None:
    """Checks that a local input exists, before anything heavy is imported; a glob or URI is checked when it is read.

    Args:
        name: name of the option.
        path: value of the option.

    Raises:
        ValueError: names the option.
    """
    check_address(name, path or "")
    if path is not None and "://" not in path and not glob.has_magic(path) and not os.path.exists(path):
        raise ValueError(f"{name}: {path} does not exist; correct the path")


def check_local(name: str, output: str) -> None:
    """Refuses an output that is not a local path, for jobs that can only write locally.

    Raises:
        ValueError: names the option.
    """
    if "://" in output:
        raise ValueError(f"{name}: {output} is not a local path; write it locally, then upload it")


def run_job(job: str, work: Callable[[], int], *, interrupted: str) -> int:
    """Runs a job's work and prints its error, if any, in one line.

    Args:
        job: name of the job, for errors.
        work: the work; returns the exit code.
        interrupted: what to print after an interruption.

    Returns:
        The exit code: that of the work; 1 if the work failed, 2 for bad input, 75 if it was interrupted.
    """
    global _working
    try:
        before, _working = _working, True  # a job may run others
        try:
            return work()
        finally:
            _working = before
    except ValueError as error:
        code, text = 2, f"error: {' '.join(str(error).split())}"
    except OSError as error:
        code, text = 1, f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}"
    except RuntimeError as error:
        code, text = 1, f"error: {error}"
    except KeyboardInterrupt:
        code, text = os.EX_TEMPFAIL, f"interrupted; {interrupted}"
    line_end = "\n" if sys.stderr.isatty() else ""  # ends a progress line
    print(f"{line_end}{job}: {text}", file=sys.stderr)
    return code


def print_left_out(job: str, video_ids: Sequence[str]) -> None:
    """Prints which videos have embeddings of another model, if any."""
    if video_ids:
        first = ", ".join(video_ids[:3]) + (", …" if len(video_ids) > 3 else "")
        print(
            f"{job}: {len(video_ids)} videos were labelled with another model and are left out: {first}",
            file=sys.stderr,
        )


def start(main: Callable[[], int]) -> NoReturn:
    """Runs a job as this process; a scheduler's SIGTERM interrupts it like Ctrl-C."""
    expect_signals()
    code = main()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # Python forgets handlers while it ends, which takes Ray some seconds
    liveness = sys.modules.get("pipelines.cluster.liveness")  # heavy, so not imported for this
    if liveness and not liveness.can_end():
        with suppress(OSError):  # nobody reads it any more
            sys.stdout.flush()
        os._exit(code)  # a Ray that was started here ends with this process; a cluster ends what this job has started
    sys.exit(code)


def expect_signals() -> None:
    """Makes SIGTERM and Ctrl-C interrupt this process's job: exit code 75, and one line."""
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as a shell starts what runs in the background
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Interrupts the work; before it there is nothing to end in order."""
    if not _working:
        os.write(2, b"interrupted; run it again\n")
        os._exit(os.EX_TEMPFAIL)
    if _is_importing(frame):  # modules swallow an interruption, or turn it into another error
        again = threading.Timer(0.1, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()
    else:
        raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame and "importlib._bootstrap" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None
