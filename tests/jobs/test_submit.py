"""Jobs as users run them on a cluster: `ray job submit` to a real one, which is on this machine."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from pipelines.archive.tables import Results
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.files import Storage
from tests.pipelines.evaluation.few_categories import leave_out_categories
from tests.waiting import wait_until

pytestmark = pytest.mark.nightly

REPOSITORY = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
PATIENCE = '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}}'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A head with four CPUs, to which only those who have its token may submit."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ov-"))  # Ray's sockets need a short path
        port = free_port()
        own = {"TMPDIR": str(self.folder), "RAY_TMPDIR": str(self.folder), "OMP_NUM_THREADS": "1"}
        own |= {
            "PATH": f"{Path(RAY).parent}:{os.environ['PATH']}",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}",
        }
        own |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = inherited | own
        ports = ["--port", str(free_port()), "--dashboard-port", str(port)]
        ports += ["--dashboard-agent-listen-port", str(free_port()), "--ray-client-server-port", str(free_port())]
        self.head = subprocess.Popen(
            [RAY, "start", "--head", "--num-cpus", "4", "--block", *ports],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def ray(self, *words: str | Path, seconds: float = 900.0) -> subprocess.CompletedProcess[str]:
        command = [RAY, *map(str, words)]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=seconds
        )

    def submit(self, *words: str | Path, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return self.ray("job", "submit", "--working-dir", REPOSITORY, *options, "--", "python", "-m", *words)

    def stop(self, name: str) -> None:
        """Stops a job as `ray job stop` does; that command takes seconds to start, in which a short job can end."""
        server = HTTPConnection(self.environment["RAY_API_SERVER_ADDRESS"].removeprefix("http://"), timeout=60)
        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        server.request("POST", f"/api/jobs/{name}/stop", headers=token)
        assert json.load(server.getresponse()) == {"stopped": True}
        server.close()
        wait_until(lambda: "was stopped" in self.ray("job", "status", name).stdout)

    def end(self) -> None:
        self.head.terminate()
        self.head.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    wait_until(
        lambda: not cluster.ray("job", "submit", "--", "true").returncode, "its agents did not come", within_s=900
    )
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("shapes"), "train", 12, 0, SceneConfig(frames=8)).path


def test_only_sources_are_sent(cluster: Cluster) -> None:
    look = "import os; print('sent:', sorted(os.listdir()))"
    done = cluster.ray("job", "submit", "--working-dir", REPOSITORY, "--", "python", "-c", look)
    (sent,) = [line for line in done.stdout.splitlines() if line.startswith("sent:")]
    assert all(f"'{name}'" in sent for name in ("jobs", "pipelines", "openvis_model"))
    assert not any(f"'{name}'" in sent for name in (".git", ".venv", "runs", "labels"))


@pytest.fixture(scope="module")
def labelled(cluster: Cluster, split: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of a job that was stopped half-way and submitted again."""
    labels = tmp_path_factory.mktemp("labels")
    options = ["--input", split / "videos", "--output", labels, "--vocabulary", split / "vocabulary.txt"]
    options += ["--part_s", "0", "--batch_size", "1"]
    name = f"stopped-{secrets.token_hex(4)}"
    submitted = ("--no-wait", "--submission-id", name, "--runtime-env-json", PATIENCE)
    assert cluster.submit("jobs.label", *options, options=submitted).returncode == 0
    results = Results(Storage(str(labels)))
    deadline = time.monotonic() + 900
    while len(results.parts()) < 2:
        assert time.monotonic() < deadline, cluster.ray("job", "logs", name).stdout
        time.sleep(0.05)
    cluster.stop(name)
    assert "label: interrupted; committed videos are kept; run it again" in cluster.ray("job", "logs", name).stdout
    kept = len(results.parts())
    assert 2 <= kept < 12
    again = cluster.submit("jobs.label", *options)
    assert again.returncode == 0, again.stdout + again.stderr
    found = re.search(r"(\d+) of 12 videos labelled, (\d+) already done", again.stdout)
    assert found
    assert kept <= int(found[2]) < 12
    assert int(found[1]) + int(found[2]) == 12
    assert "\r" not in again.stdout
    assert "Traceback" not in again.stdout
    return labels


def test_a_job_that_is_stopped_goes_on_when_it_is_submitted_again(labelled: Path) -> None:
    assert len(Results(Storage(str(labelled))).read("videos")) == 12


def test_bad_input_is_told(cluster: Cluster, split: Path, tmp_path: Path) -> None:
    options = ["--input", split / "videos", "--output", tmp_path / "labels", "--vocabulary", tmp_path / "absent.txt"]
    bad = cluster.submit("jobs.label", *options)
    assert bad.returncode == 1  # Ray's own; the job's is in its status
    assert "label: error: vocabulary: " in bad.stdout
    assert "exit code 2" in bad.stdout + bad.stderr


def test_relabel_and_search(cluster: Cluster, split: Path, labelled: Path, tmp_path: Path) -> None:
    first, *_ = (split / "vocabulary.txt").read_text().splitlines()
    (tmp_path / "one.txt").write_text(first)
    options = ["--labels", labelled, "--output", tmp_path / "new", "--vocabulary", tmp_path / "one.txt"]
    done = cluster.submit("jobs.relabel", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " of 12 videos renamed in " in done.stdout
    assert set(Results(Storage(str(tmp_path / "new"))).read("tracks")["category"].to_pylist()) == {first}
    done = cluster.submit("jobs.search", "--labels", labelled, "--text", first, "--sheet", tmp_path / "found.png")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "found.png").exists()
    relative = cluster.submit("jobs.search", "--labels", labelled, "--text", first, "--sheet", "found.png")
    assert "sheet: found.png is in the cluster's copy of the working folder" in relative.stdout


def test_train_and_evaluate(cluster: Cluster, tmp_path: Path) -> None:
    split = write_split(tmp_path, "train", 2, 0, SceneConfig(frames=4)).path
    leave_out_categories(split / "instances.json")
    data = f"{{annotations: {split}/instances.json, height: 96, width: 128, max_stride: 1, frames: 2}}"
    (tmp_path / "train.yaml").write_text(
        "steps: 4\nbatch_size: 2\nthreads: 1\ncheckpoint_every: 2\n"
        f"stage_1: {{start: {{preset: mini}}, data: {data}, objective: {{criterion: {{num_points: 256}}}}}}\n"
    )
    done = cluster.submit("jobs.train", "--config", tmp_path / "train.yaml", "--output", tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 steps, in " in done.stdout
    (tmp_path / "sweep.yaml").write_text(
        f"output: {tmp_path}/sweep\n"
        f"datasets: [{{name: few, protocol: shapes, ground_truth: {split}/instances.json}}]\n"
        f"checkpoints: [{{name: new, path: {tmp_path}/run/model}}]\n"
    )
    done = cluster.submit("jobs.evaluate", "run", "--config", tmp_path / "sweep.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "new, few, rollout: AP " in done.stdout
