"""This machine, and the cluster's others."""

import os
import re

import ray
from ray._private.state import state
from ray._private.utils import get_num_cpus

from pipelines.cluster.connection import running_cluster
from pipelines.cluster.liveness import local_node, told


def cores() -> int:
    """Returns the cores that this process may use: those of its container and its affinity, not all of the host's."""
    usable = int(get_num_cpus(override_docker_cpu_warning=True))
    if hasattr(os, "sched_getaffinity"):  # not on a Mac
        usable = min(usable, len(os.sched_getaffinity(0)))
    return max(1, usable)


def thread_limit() -> int | None:
    """Returns what OMP_NUM_THREADS asks for; None if it does not, or on a cluster, where Ray itself sets it."""
    given, node = os.environ.get("OMP_NUM_THREADS", ""), local_node()
    on_cluster = node is not None and not node.all_processes
    return int(given) if re.fullmatch(r"0*[1-9]\d{0,3}", given) and not on_cluster else None


def node_id() -> str:
    """Returns Ray's id of this machine; empty outside of a cluster."""
    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


def machines_to_go() -> dict[str, str]:
    """Returns the addresses of the cluster's machines that are about to be taken away, by Ray's ids.

    Raises:
        RayDiedError: as `check_ray`.
    """

    def ask() -> dict[str, str]:
        going = state.get_draining_nodes()
        return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] in going}  # type: ignore[no-untyped-call]

    return told(ask)


def check_gpus(gpus_name: str, gpus: float, workers_name: str, workers: int, here: int) -> None:
    """Checks that this machine has the GPUs asked for; a cluster may grow, a machine will not.

    Args:
        gpus_name: option that sets the number of GPUs per process.
        gpus: value of that option.
        workers_name: option that sets the number of processes.
        workers: value of that option.
        here: number of GPUs of this machine.

    Raises:
        ValueError: this machine has fewer and no cluster runs, so the run would wait for ever.
    """
    wanted = gpus * workers
    if wanted > here and not ray.is_initialized() and running_cluster() is None:
        raise ValueError(
            f"{gpus_name}: {workers} {workers_name} need {wanted:g} GPUs, this machine has {here}; "
            f"lower {gpus_name} or {workers_name}, or set RAY_ADDRESS to a cluster"
        )
