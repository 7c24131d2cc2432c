"""The report of a run in `runs/` of its output: one JSON file, written however the run ends."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from pipelines.storage.files import Storage

PACKAGES = ("openvis", "torch", "ray", "av", "numpy", "pyarrow")


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
    report: dict[str, Any] = {"id": run, "started": started.isoformat(), "outcome": "done", "error": None}
    report |= {"versions": versions, **facts}
    try:
        yield report
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        report |= {"outcome": "interrupted" if interrupted else "broken", "error": str(error) or None}
        raise
    finally:
        report["seconds"] = round(time.monotonic() - began, 3)
        # If the storage cannot be written to, the run has already ended with an error that says more.
        with suppress(OSError), storage.write(f"runs/{run}.json") as file:
            file.write(json.dumps(report, indent=1, ensure_ascii=False).encode())
