import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess


def run(main: Callable[[list[str]], int], *arguments: str | Path) -> CompletedProcess[str]:
    """Runs a job in this process, where the libraries are imported already; returns what a process would."""
    words = list(map(str, arguments))
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            code = main(words)
        except SystemExit as end:  # of --help
            code = int(end.code or 0)
    return CompletedProcess(words, code, stdout.getvalue(), stderr.getvalue())
