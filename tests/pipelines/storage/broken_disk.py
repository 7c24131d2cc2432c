"""A local disk that fails when a file is read."""

import io
import os
from typing import Any

import pytest

from pipelines.storage import local


def break_reads(patch: pytest.MonkeyPatch, number: int) -> None:
    """Lets every read of a local file that is open fail with an error of the system, as Python raises it."""

    def fail(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    raw = type("Raw", (io.FileIO,), {"readinto": fail, "readall": fail})
    patch.setattr(local, "_File", type("Broken", (local._File, raw), {}))
