"""The report of a run in `runs/` of its output: one JSON file, written when it begins and when it ends."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from pipelines.storage.files import Storage

PACKAGES = ("openvis", "torch", "ray", "av", "numpy", "pyarrow", "deltalake")


@contextmanager
def run_report(storage: Storage, run: str, facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the report as a dictionary; entries added while the block runs are written too.

    Args:
        storage: the output.
        run: name of the run, the prefix of its parts' names.
        facts: entries known at the start.
    """
    began, started = time.monotonic(), datetime.now(UTC)
    versions = {"python": sys.version.split()[0]} | {package: version(package) for package in PACKAGES}
    report: dict[str, Any] = {"id": run, "started": started.isoformat(), "outcome": "unfinished", "error": None}
    report |= {"versions": versions, **facts}
    _write(storage, report)  # stays if the process is killed
    try:
        yield report
        report["outcome"] = "done"
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        report |= {"outcome": "interrupted" if interrupted else "broken", "error": str(error) or None}
        raise
    finally:
        report["seconds"] = round(time.monotonic() - began, 3)
        _write(storage, report)


def _write(storage: Storage, report: Mapping[str, Any]) -> None:
    # If the storage cannot be written to, the run ends with an error that says more.
    with suppress(OSError), storage.write(f"runs/{report['id']}.json") as file:
        file.write(json.dumps(report, indent=1, ensure_ascii=False).encode())
