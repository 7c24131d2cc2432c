import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import ray
from ray._private import worker

from pipelines.cluster.liveness import RayDiedError
from pipelines.cluster.nodes import check_gpus, cores, machines_to_go, thread_limit


def test_a_ray_that_dies_while_it_is_asked_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question itself gets no answer."""
    over, checks = threading.Event(), list[int]()

    def died() -> None:
        checks.append(1)
        if len(checks) == 2:
            raise RayDiedError("Ray died here")

    monkeypatch.setattr("pipelines.cluster.liveness.check_ray", died)
    monkeypatch.setattr("pipelines.cluster.nodes.state.get_draining_nodes", lambda: over.wait(60))
    with pytest.raises(RayDiedError, match="Ray died here"):
        machines_to_go()
    over.set()


def test_gpus_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    check_gpus("model_gpus", 0.5, "model_actors", 4, here=2)
    with pytest.raises(ValueError, match="model_gpus: 3 model_actors need 1.5 GPUs, this machine has 1; lower model_g"):
        check_gpus("model_gpus", 0.5, "model_actors", 3, here=1)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    check_gpus("model_gpus", 0.5, "model_actors", 3, here=1)  # a cluster may grow


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 5, 7}, raising=False)
    for of_container, usable in ((16.0, 5), (2.0, 2), (0.0, 1)):
        monkeypatch.setattr("pipelines.cluster.nodes.get_num_cpus", lambda n=of_container, **_: n)
        assert cores() == usable


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_that_is_bound_to_a_core_uses_that_one() -> None:
    code = (
        "import os; from pipelines.cluster.nodes import cores\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize(("given", "limit"), [("1", 1), ("04", 4), ("", None), ("0", None), ("2,1", None)])
def test_threads_are_limited_as_usual(monkeypatch: pytest.MonkeyPatch, given: str, limit: int | None) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(worker, "_global_node", None)
    assert thread_limit() == limit
    monkeypatch.setattr(worker, "_global_node", SimpleNamespace(all_processes={"raylet": [None]}))
    assert thread_limit() == limit
    monkeypatch.setattr(worker, "_global_node", SimpleNamespace(all_processes={}))  # of a process that has joined
    assert thread_limit() is None
    monkeypatch.setattr(worker, "_global_node", None)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert thread_limit() is None
