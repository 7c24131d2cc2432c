import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import jobs.review
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.jobs.in_process import run
from tests.pipelines.archive.exports import SEEN, put
from tests.pipelines.archive.labels import part_name


@pytest.fixture
def labels(tmp_path: Path) -> str:
    results = Results(Storage(str(tmp_path / "labels")))
    put(results, part_name(1), SEEN)
    return results.storage.root


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_printed_url_opens_the_page(labels: str, end: signal.Signals) -> None:
    command = [sys.executable, "-m", "jobs.review", "--labels", labels]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        assert job.stderr is not None
        assert job.stdout.readline() == "4 tracks of 3 videos\n"
        url = job.stdout.readline().removeprefix("review: ").strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", url)
        with urllib.request.urlopen(url) as page:  # noqa: S310 - our own server
            assert b"openvis review" in page.read()
        with urllib.request.urlopen(url.replace("/?", "/api/archive?")) as archive:  # noqa: S310
            assert b'"tracks": 4' in archive.read()
        job.send_signal(end)
        assert job.wait(60) == 0
        assert job.stderr.read() == ""


def test_bad_input_is_named(labels: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, message in (
            (["--labels", str(tmp_path / "absent")], "labels: .*absent does not exist; correct the path"),
            (
                ["--labels", str(tmp_path / "empty")],
                "labels: .*empty has no labels; give the output of a labelling run",
            ),
            (["--labels", labels, "--checkpoint", "absent"], "checkpoint: absent does not exist; correct the path"),
            (
                ["--labels", labels, "--model", "eomt-larg"],
                "model: there is no recipe 'eomt-larg'; did you mean eomt-large",
            ),
            (["--labels", labels, "--port", port], rf"port: cannot listen on {port} \(.*in use.*\); choose another"),
            (["--labels", labels, "--host", "no.such.host.invalid"], "host: cannot listen on no.such.host.invalid"),
            (["--labels", labels, "--port", "99999"], "port: expected 0 to 65535, got 99999"),
        ):
            done = run(jobs.review.main, *arguments)
            assert done.returncode == 2
            (line,) = done.stderr.splitlines()
            assert re.match(f"review: error: {message}", line), line


def test_a_report(labels: str, tmp_path: Path) -> None:
    done = run(jobs.review.main, "--labels", labels, "--report", str(tmp_path / "report.json"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["precision", "95", "%", "judged", "tracks", "category"]
    assert "uncertain: star (0.50), track 0 of b-2" in done.stdout
    assert (tmp_path / "report.json").exists()
    wrong = run(jobs.review.main, "--labels", labels, "--report", str(tmp_path / "report.txt"))
    assert (wrong.returncode, wrong.stderr.startswith("review: error: report: ")) == (2, True)
