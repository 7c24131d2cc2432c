import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray

from pipelines.cluster.connection import connect
from tests.started_cluster import started_cluster

LISTENS = """
import psutil, ray
from pipelines.cluster.connection import connect
connect(2)
ray.get(ray.remote(lambda: None).remote())
actor = ray.remote(type("Actor", (), {"ready": lambda self: None})).remote()
ray.get(actor.ready.remote())
this = psutil.Process()
for process in (this, *this.children(recursive=True)):
    for connection in process.net_connections("inet"):
        if connection.status == psutil.CONN_LISTEN:
            print(process.name().split()[0], connection.laddr.ip)
"""

STARTS = """
import os, signal, ray
from pipelines.cluster.connection import connect
from ray._private.node import Node
def handler(*args): pass
signal.signal(signal.SIGTERM, handler)
start = Node.start_head_processes
def interrupt(self):  # Ray has its handler by now
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    start(self)
Node.start_head_processes = interrupt
try:
    connect(7)
except KeyboardInterrupt:
    assert ray.is_initialized()
    print("in order")
connect(9)  # is there already
assert ray.cluster_resources()["CPU"] == 7
assert signal.getsignal(signal.SIGTERM) is handler
"""

IDLES = """
import os, time, ray
from pipelines.cluster.connection import connect
connect(1)
@ray.remote(num_cpus=0)
def work(seconds):
    time.sleep(seconds)
    return os.getpid()
first = set(ray.get([work.remote(2) for _ in range(3)]))
assert len(first) == 3  # more than there are slots
time.sleep(4)
assert set(ray.get([work.remote(0.5) for _ in range(3)])) <= first
"""


@pytest.mark.nightly
def test_workers_outlast_a_pause() -> None:
    """By default Ray ends after a second those that are more than its slots, and starts others in their place."""
    done = subprocess.run([sys.executable, "-c", IDLES], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_ray_on_this_machine_is_out_of_reach_of_others() -> None:
    done = subprocess.run([sys.executable, "-c", LISTENS], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    listening = [line.split() for line in done.stdout.splitlines()]
    assert {name for name, _ in listening} >= {"gcs_server", "raylet", "ray::IDLE"}
    assert {address.removeprefix("::ffff:") for _, address in listening} <= {"127.0.0.1", "::1"}, done.stdout


@pytest.mark.slow
def test_a_signal_while_ray_starts_on_this_machine_waits_until_it_has_started() -> None:
    done = subprocess.run([sys.executable, "-c", STARTS], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "in order\n", "")


NOBODY = """
import os
from pipelines.cluster import connection, liveness
liveness._GONE_S = 1.0
connection._JOIN_S = 3.0
try:
    connection.connect(1)
except RuntimeError as error:
    print(error, flush=True)
os._exit(0)  # otherwise Ray goes on trying
"""


@pytest.mark.parametrize("listens", [False, True])
def test_an_address_where_no_ray_listens_is_named(listens: bool) -> None:
    with socket.create_server(("", 0)) as server:  # Ray takes the address in the network
        port = server.getsockname()[1] if listens else 1
        environment = os.environ | {"RAY_ADDRESS": f"127.0.0.1:{port}"}
        command = [sys.executable, "-c", NOBODY]
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert f":{port} is not responding; start it, or set RAY_ADDRESS=local to run without it\n" in done.stdout


DIES_EARLY = """
import sys
from ray._private import worker
from ray._private.node import Node
from pipelines.cluster import connection, liveness
liveness._GONE_S = 1.0
if sys.argv[1] == "before the node is known":
    owner, name = Node, "__init__"
else:
    owner, name = worker, "connect"
go_on = getattr(owner, name)
def wait(*args, **options):
    print("connecting", flush=True)
    sys.stdin.readline()
    go_on(*args, **options)
setattr(owner, name, wait)
try:
    connection.connect(1)
except RuntimeError as error:
    print(error, flush=True)
"""


def _connecting(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    done = subprocess.Popen(
        [sys.executable, "-c", DIES_EARLY, *arguments],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout
    assert done.stdout.readline() == "connecting\n"
    return done


def _error_of(done: "subprocess.Popen[str]") -> str:
    """Lets it go on, and returns what it prints; Ray would keep the process for a minute after that."""
    assert done.stdin
    assert done.stdout
    print(file=done.stdin, flush=True)
    error = done.stdout.readline()
    done.kill()
    done.communicate()
    return error


@pytest.mark.slow
def test_a_ray_that_dies_while_it_starts_is_named() -> None:
    connecting = _connecting("after that", RAY_ADDRESS="local")
    (server,) = [child for child in psutil.Process(connecting.pid).children() if child.name() == "gcs_server"]
    server.kill()
    expected = "Ray died here (gcs_server, exit code -9); what is committed is kept, run it again\n"
    assert _error_of(connecting) == expected


LOSES_ITS_RAYLET = """
import psutil, ray
from pipelines.cluster import connection, liveness
register = ray._raylet.CoreWorker
def lose_it_and_register(*args):
    (raylet,) = [child for child in psutil.Process().children() if child.name() == "raylet"]
    raylet.kill()
    return register(*args)
ray._raylet.CoreWorker = lose_it_and_register
connection.connect(1)
"""


@pytest.mark.nightly
def test_a_raylet_that_dies_while_this_process_registers_with_it_is_told() -> None:
    """Ray's native code then ends the process, and says nothing that `connect` lets through."""
    environment = os.environ | {"RAY_ADDRESS": "local"}
    done = subprocess.run(
        [sys.executable, "-c", LOSES_ITS_RAYLET], env=environment, capture_output=True, text=True, timeout=300
    )
    told = "error: this process ended while it was connecting to Ray; what is committed is kept, run it again"
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == told


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("when", "text"),
    [
        ("before the node is known", " is not responding; start it, or set RAY_ADDRESS=local to run without it\n"),
        ("after that", " does not answer); what is committed is kept, run it again\n"),
    ],
)
def test_a_cluster_that_dies_while_it_is_joined_is_named(when: str, text: str) -> None:
    with started_cluster() as cluster:
        connecting = _connecting(when, **cluster.environment | {"RAY_ADDRESS": cluster.address})
        cluster.kill("gcs_server")
        assert _error_of(connecting).endswith(text)


STANDS_STILL = """
from pipelines.cluster.connection import connect
print("connecting", flush=True)
try:
    connect(1)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.nightly
def test_joining_a_cluster_that_stands_still_can_be_interrupted() -> None:
    with started_cluster() as cluster, cluster.paused("gcs_server"):
        environment = cluster.environment | {"RAY_ADDRESS": cluster.address}
        connecting = subprocess.Popen(
            [sys.executable, "-c", STANDS_STILL], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert connecting.stdout
        assert connecting.stdout.readline() == "connecting\n"
        time.sleep(2)
        assert connecting.poll() is None
        connecting.send_signal(signal.SIGINT)
        assert connecting.communicate(timeout=60)[0] == "interrupted\n"
        assert connecting.returncode == 0


JOINS = """
import ray
from pipelines.cluster.connection import connect
from pipelines.cluster.nodes import check_gpus
check_gpus("model_gpus", 1, "model_actors", 9, here=0)  # the cluster may grow
connect(7)
assert ray.cluster_resources()["CPU"] == 3
"""


@pytest.mark.nightly
def test_a_cluster_that_was_started_here_is_joined(tmp_path: Path) -> None:
    """As after `ray up` and `ray attach`, where nothing sets RAY_ADDRESS."""
    with started_cluster() as cluster:

        def python(code: str, **more: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-c", code]
            return subprocess.run(command, env=cluster.environment | more, check=False, capture_output=True, text=True)

        done = python(JOINS)
        assert done.returncode == 0, done.stderr
        assert python(STARTS, RAY_ADDRESS="local").returncode == 0
        no_token = {"RAY_AUTH_TOKEN": "", "HOME": str(tmp_path)}
        done = python("from pipelines.cluster.connection import connect\nconnect(7)", **no_token)
        assert "RuntimeError: the Ray cluster at " in done.stderr, done.stderr
        assert "requires a token" in done.stderr


def test_an_address_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere")
    with pytest.raises(ValueError, match="^RAY_ADDRESS: .*nowhere; give the address of a cluster, or `local`$"):
        connect(1)
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1")
    with pytest.raises(ValueError, match="^RAY_ADDRESS: got 'ray://127.0.0.1', expected HOST:PORT"):
        connect(1)


def test_a_ray_that_does_not_start_in_time_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def time_out(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", time_out)
    with pytest.raises(RuntimeError, match="^Ray did not start in time; run it again when this machine is less busy$"):
        connect(1)
