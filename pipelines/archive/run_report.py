"""What a run was and did, in `runs/` of its output: one JSON file that is written however the run ends."""

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
def run_report(storage: Storage, run: str, about: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the report, to be filled while the block runs.

    Args:
        storage: the output.
        run: its name, with which those of its parts begin.
        about: what is known before.
    """
    began, started = time.monotonic(), datetime.now(UTC)
    versions = {"python": sys.version.split()[0]} | {package: version(package) for package in PACKAGES}
    report: dict[str, Any] = {"id": run, "started": started.isoformat(), "outcome": "done", "error": None}
    report |= {"versions": versions, **about}
    try:
        yield report
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        report |= {"outcome": "interrupted" if interrupted else "broken", "error": str(error) or None}
        raise
    finally:
        report["seconds"] = round(time.monotonic() - began, 3)
        # A storage that cannot be written to has already ended the run, with an error that says more.
        with suppress(OSError), storage.write(f"runs/{run}.json") as file:
            file.write(json.dumps(report, indent=1, ensure_ascii=False).encode())
