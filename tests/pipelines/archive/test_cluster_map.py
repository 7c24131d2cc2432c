import subprocess
import sys
import threading
from typing import Any

import pytest

from pipelines.archive.cluster_map import READER, map_on_cluster

RAY_DIES = """
import os, psutil, time
from pipelines.archive.cluster_map import map_on_cluster

def task(row):
    (gcs,) = [each for each in psutil.Process(row["driver"]).children() if each.name() == "gcs_server"]
    gcs.kill()
    time.sleep(600)

try:
    list(map_on_cluster(task, [{"driver": os.getpid()}]))
except RuntimeError as error:
    print(error, flush=True)
    os._exit(0)
"""


@pytest.mark.usefixtures("cluster")
def test_every_row_is_worked_on_and_an_error_is_one_line() -> None:
    rows = [{"part": str(number)} for number in range(5)]

    def task(row: dict[str, Any]) -> dict[str, Any]:
        if row["part"] == "broken":
            raise TypeError("a mistake in the code")
        return row | {"done": True}

    assert sorted(map_on_cluster(task, rows), key=lambda row: row["part"]) == [row | {"done": True} for row in rows]
    with pytest.raises(RuntimeError, match="^TypeError: a mistake in the code$"):
        list(map_on_cluster(task, [{"part": "broken"}]))


@pytest.mark.usefixtures("cluster")
def test_work_whose_results_are_no_longer_wanted_ends() -> None:
    results = map_on_cluster(lambda row: row, [{"part": str(number)} for number in range(200)])
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name == READER]


@pytest.mark.nightly
def test_a_ray_that_dies_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", RAY_DIES], check=True, capture_output=True, text=True, timeout=300)
    assert "Ray died here (gcs_server, exit code -9); what is committed is kept, run it again" in done.stdout
