import subprocess
import sys

import pytest

from pipelines.cluster import liveness
from pipelines.cluster.liveness import Watch
from tests.started_cluster import started_cluster

DIES = """
import sys, time, psutil, ray
from pipelines.cluster.connection import connect
from pipelines.cluster.liveness import answers
connect(1)
(process,) = [child for child in psutil.Process().children(recursive=True) if sys.argv[1] in child.name()]
nap = ray.remote(num_cpus=0)(lambda seconds: time.sleep(seconds))
assert answers([nap.remote(0), nap.remote(0)], 60) == [None, None]
call = nap.remote(60)
process.kill()
try:
    answers([call], 60)
except RuntimeError as error:
    print(error, flush=True)
"""


@pytest.mark.parametrize("name", ["raylet", pytest.param("gcs_server", marks=pytest.mark.nightly)])
@pytest.mark.slow
def test_a_ray_that_died_is_named(name: str) -> None:
    done = subprocess.Popen([sys.executable, "-c", DIES, name], stdout=subprocess.PIPE, text=True)
    assert done.stdout
    text = f"Ray died here ({name}, exit code -9); what is committed is kept, run it again\n"
    assert text in iter(done.stdout.readline, "")  # after what Ray itself prints
    done.kill()  # otherwise Ray waits for its dead server
    done.communicate()


JOINED = """
import ray, time
from pipelines.cluster import connection, liveness
connection.connect(1)
liveness._GONE_S = 1.0
nap = ray.remote(num_cpus=0)(lambda seconds: time.sleep(seconds))
assert liveness.answers([nap.remote(0)], 60) == [None]
call = nap.remote(600)
print("joined", flush=True)
try:
    liveness.answers([call], 600)
except RuntimeError as error:
    print(error, flush=True)
"""


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_joined_ray_that_died_is_named(name: str) -> None:
    with started_cluster() as cluster:
        environment = cluster.environment | {"RAY_ADDRESS": cluster.address}
        done = subprocess.Popen([sys.executable, "-c", JOINED], env=environment, stdout=subprocess.PIPE, text=True)
        assert done.stdout
        assert done.stdout.readline() == "joined\n"
        cluster.kill(name)
        text = next(line for line in iter(done.stdout.readline, "") if line.startswith("Ray died"))
        assert text.endswith(" does not answer); what is committed is kept, run it again\n")
        done.kill()  # otherwise Ray waits a minute for its dead server
        done.communicate()


def test_only_an_address_that_stays_silent_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(liveness.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(liveness, "_is_listening", lambda address: clock[0] == 115)
    watch, seen = Watch("127.0.0.1:1"), {}
    for clock[0] in (100, 110, 115, 120, 130, 139, 140, 141, 5000, 5019, 5020):
        seen[clock[0]] = watch.is_away()
    assert [moment for moment, away in seen.items() if away] == [140, 141, 5020]
