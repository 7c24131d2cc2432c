"""A nightly run on spot machines: everything that can die does, at random, and no row is lost or doubled."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from deltalake import DeltaTable
from ray.cluster_utils import Cluster

from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage import s3
from pipelines.storage.files import Storage
from tests.pipelines.archive.delta import connection

VIDEOS = 32
NODE = {"num_cpus": 2, "object_store_memory": 200_000_000}
SEEDS = [int(seed) for seed in os.environ.get("OPENVIS_CHAOS_SEEDS", "0").split(",")]

KEYS = {"videos": ["video_id"], "tracks": ["video_id", "track_id"], "masks": ["video_id", "track_id", "frame"]}
TIMES = {"model_s", "tracker_s"}


class Machines:
    """A cluster of three machines, two of them spot machines."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        self.spot = [self.cluster.add_node(**NODE) for _ in range(2)]
        self.environment = os.environ | {"RAY_ADDRESS": self.cluster.address, "TMPDIR": str(folder)}
        self.driver: subprocess.Popen[str] | None = None

    def run(self, command: list[str]) -> subprocess.Popen[str]:
        self.driver = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return self.driver

    def lose(self, what: str, dice: np.random.Generator) -> None:
        """Kills the driver, a machine, or a tracker or model actor, without warning."""
        if what == "driver":
            assert self.driver is not None
            self.driver.kill()
        elif what == "machine":
            self.cluster.remove_node(self.spot.pop(dice.integers(len(self.spot))), allow_graceful=False)
            self.spot.append(self.cluster.add_node(**NODE))
        else:
            title = {"tracker": "ray::TrackerActor", "model": "ray::MapWorker(MapBatches(Model"}[what]
            actors = [process for process in psutil.process_iter() if _title(process).startswith(title)]
            if actors:
                actors[dice.integers(len(actors))].kill()

    def end(self) -> None:
        if self.driver and self.driver.poll() is None:
            self.driver.kill()
        self.cluster.shutdown()


def _title(process: psutil.Process) -> str:
    """Returns the title of a process of this test; empty for processes of other tests."""
    try:
        mine = process.environ().get("OPENVIS_CHAOS") == os.environ["OPENVIS_CHAOS"]
        return " ".join(process.cmdline()) if mine else ""
    except psutil.Error:
        return ""


@pytest.fixture
def machines(bucket: str, no_cluster: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    folder = Path(tempfile.mkdtemp(prefix="ov-"))  # Ray's sockets need a short path
    for name in ("TMPDIR", "RAY_TMPDIR"):  # Ray writes the address of the cluster there, too
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("OPENVIS_CHAOS", folder.name)
    machines = Machines(folder)
    yield machines
    machines.end()
    shutil.rmtree(folder, ignore_errors=True)


def tables(output: str) -> dict[str, list[dict[str, Any]]]:
    """Returns all rows of the files, whether they count or not, sorted."""
    results = Results(Storage(output))
    rows_of = {}
    for table, keys in KEYS.items():
        rows = [
            row for part in results.parts() for group in results.row_groups(table, part) for row in group.to_pylist()
        ]
        rows_of[table] = sorted(rows, key=lambda row, keys=keys: [row[key] for key in keys])
        for row in rows_of[table]:
            for name in TIMES & row.keys():
                del row[name]
    return rows_of


@pytest.mark.nightly
@pytest.mark.parametrize("seed", SEEDS)
def test_no_row_is_lost_or_doubled(seed: int, bucket: str, machines: Machines, tmp_path: Path) -> None:
    split = write_split(tmp_path, "valid", VIDEOS, 0, SceneConfig(frames=4)).path
    for file in (split / "videos").iterdir():
        s3.upload(file, f"{bucket}/in/{file.name}")

    def command(output: str) -> list[str]:
        options = {"input": f"{bucket}/in", "output": f"{bucket}/{output}", "vocabulary": split / "vocabulary.txt"}
        options |= {"trackers": 2, "model_actors": "1-2", "part_s": 2, "batch_size": 4, "max_attempts": 10}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "jobs.label", *words]

    quiet = machines.run(command("quiet"))
    printed, _ = quiet.communicate(timeout=900)
    assert quiet.returncode == 0, printed
    expected = tables(f"{bucket}/quiet")
    assert len(expected["videos"]) == VIDEOS
    assert len(expected["masks"]) > VIDEOS

    dice = np.random.default_rng(seed)
    losses = dice.permutation(["driver", "machine", "tracker", "model"]).tolist()
    results = Results(Storage(f"{bucket}/out"))
    deadline = time.monotonic() + 900
    driver, goal = machines.run(command("out")), 0
    while losses or driver.poll() is None:
        assert time.monotonic() < deadline, f"still to be lost: {losses}"
        if driver.poll() is not None:
            assert driver.returncode in (-signal.SIGKILL, 1), driver.communicate()[0]
            driver = machines.run(command("out"))
        elif losses and sum(map(len, results.counting().values())) >= goal:
            machines.lose(losses.pop(), dice)
            goal = sum(map(len, results.counting().values())) + int(dice.integers(1, 6))
        time.sleep(0.2)
    assert driver.returncode == 0, driver.communicate()[0]
    labelled = tables(f"{bucket}/out")
    for table in SCHEMAS:
        assert labelled[table] == expected[table], table
        rows = DeltaTable(f"{bucket}/out/{table}", storage_options=connection(bucket)).to_pyarrow_table()
        assert rows.num_rows == len(expected[table]), table
    there = [*results.parts(), *results.replaced()]
    names = {f"{table}/{part}.parquet" for table in SCHEMAS for part in there}
    assert {path for table in SCHEMAS for path in results.storage.list(table)} == names
