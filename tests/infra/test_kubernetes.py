import gzip
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft202012Validator

INFRA = Path(__file__).parents[2] / "infra"
KUBERNETES = INFRA / "kubernetes"
JOBS = ("label", "nightly", "train_stage_1", "train_stage_2", "evaluate")
POLICY = KUBERNETES / "base/network_policy.yaml"
KINDS = ("RayCluster", "RayJob", "RayCronJob")
OVERLAYS = (*JOBS, "cluster", "data")

KUSTOMIZE = [command for command in (["kubectl", "kustomize"], ["kustomize", "build"]) if shutil.which(command[0])]
rendering = pytest.mark.skipif(not KUSTOMIZE, reason="neither kubectl nor kustomize, which pip cannot install, is here")


def strict(schema: Any) -> Any:
    """As the API server reads the schema, but a field that it does not know is an error."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {name: strict(each) for name, each in schema.items()}
    is_object = schema.get("type") == "object" and isinstance(schema.get("properties"), dict)
    if is_object and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


@cache
def definition(kind: str) -> Draft202012Validator:
    """Returns what checks a resource of KubeRay."""
    file = Path(__file__).with_name("schemas") / f"ray.io_{kind.lower()}s.yaml.gz"
    crd = yaml.load(gzip.decompress(file.read_bytes()), yaml.CSafeLoader)
    (schema,) = [each["schema"]["openAPIV3Schema"] for each in crd["spec"]["versions"] if each["name"] == "v1"]
    return Draft202012Validator(strict(schema))


def problems(resource: dict[str, Any]) -> list[str]:
    if resource["kind"] in KINDS:
        found = definition(resource["kind"]).iter_errors(resource)
        return [f"{'.'.join(map(str, each.absolute_path))}: {each.message}" for each in found]
    try:
        kubernetes_validate.validate(resource, "1.32", strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error)]
    return []


def load(file: Path) -> list[dict[str, Any]]:
    return [resource for resource in yaml.safe_load_all(file.read_text()) if resource]


def composed(overlay: str) -> Iterator[dict[str, Any]]:
    """The resources of an overlay, the cluster copied into its job as `own_cluster` says."""
    if overlay == "data":
        for file in ("claim", "pod"):
            yield from load(KUBERNETES / f"data/{file}.yaml")
        return
    (cluster,) = load(KUBERNETES / "base/cluster.yaml")
    if overlay == "cluster":
        yield cluster
        return
    (job,) = load(KUBERNETES / overlay / "job.yaml")
    job["spec"].get("jobTemplate", job["spec"])["rayClusterSpec"] = cluster["spec"]
    yield job


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def accounts_of(resources: Any) -> set[str]:
    """Names of the service accounts that pods want."""
    if isinstance(resources, list):
        return set().union(*map(accounts_of, resources))
    if not isinstance(resources, dict):
        return set()
    own = {resources["serviceAccountName"]} if "serviceAccountName" in resources else set()
    return own.union(*map(accounts_of, resources.values()))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_applied_is_what_kuberay_knows(overlay: str) -> None:
    for resource in (*composed(overlay), *load(KUBERNETES / "base/service_accounts.yaml"), *load(POLICY)):
        assert problems(resource) == []


@rendering
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_renders_it(overlay: str) -> None:
    """The parts are checked above in any case."""
    done = subprocess.run([*KUSTOMIZE[0], str(KUBERNETES / overlay)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resources = list(yaml.safe_load_all(done.stdout))
    for resource in resources:
        assert problems(resource) == []
        assert resource["metadata"]["namespace"] == "openvis"
    accounts = [each["metadata"] for each in resources if each["kind"] == "ServiceAccount"]
    assert {account["name"] for account in accounts} == accounts_of(resources)
    for account in accounts:
        assert account["annotations"]["eks.amazonaws.com/role-arn"].startswith("arn:aws:iam::")
    rendered = {resource["kind"]: resource for resource in resources}
    assert ("RayCluster" in rendered) == (overlay == "cluster")
    assert ("PersistentVolumeClaim" in rendered) == (overlay == "data")  # or it would go with a job
    if overlay == "data":
        assert rendered["PersistentVolumeClaim"]["spec"]["storageClassName"] == "efs"
        return
    found = next(rendered[kind] for kind in KINDS if kind in rendered)["spec"]
    found = found.get("jobTemplate", found)
    spec = found.get("rayClusterSpec", found)
    images = {container["image"] for pod in pods(spec) for container in pod["containers"]}
    assert len(images) == 1
    assert images != {"openvis"}
    mounted = {mount["mountPath"] for pod in pods(spec) for mount in pod["containers"][0]["volumeMounts"]}
    assert ("/data" in mounted) == (overlay.startswith("train") or overlay == "evaluate")


def test_logs_are_kept_beside_ray(tmp_path: Path) -> None:
    (job,) = composed("label")
    (logs,) = load(KUBERNETES / "logs/kustomization.yaml")
    spec = job["spec"]["rayClusterSpec"]
    for change in yaml.safe_load(logs["patches"][0]["patch"]):
        place = {"spec": spec}
        *path, end = change["path"].removeprefix("/").split("/")
        assert (change["op"], end) == ("add", "-")
        for step in path:
            place = place[int(step) if step.isdigit() else step]
        place.append(change["value"])
    assert problems(job) == []
    head = spec["headGroupSpec"]["template"]["spec"]
    volumes = {volume["name"] for volume in head["volumes"]}
    ray, beside = ({mount["mountPath"]: mount["name"] for mount in each["volumeMounts"]} for each in head["containers"])
    assert ray["/tmp/ray"] == beside["/tmp/ray"] == "ray-logs"  # noqa: S108 - Ray's own
    assert {*ray.values(), *beside.values()} == volumes
    if KUSTOMIZE:
        copy = shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
        settings = copy / "settings/kustomization.yaml"
        settings.write_text(settings.read_text().replace("# components: [../logs]", "components: [../logs]"))
        done = subprocess.run([*KUSTOMIZE[0], str(copy / "label")], capture_output=True, text=True, check=True)
        (rendered,) = [each for each in yaml.safe_load_all(done.stdout) if each["kind"] == "RayJob"]
        assert len(pods(rendered["spec"]["rayClusterSpec"])[0]["containers"]) == 2


def test_what_the_dashboard_shows_can_be_kept(tmp_path: Path) -> None:
    """By the collector that KubeRay puts beside Ray, and its server, which read the same settings."""
    (job,) = composed("label")
    (collector,) = load(KUBERNETES / "collector/kustomization.yaml")
    ((change,), server) = yaml.safe_load(collector["patches"][0]["patch"]), load(KUBERNETES / "history/server.yaml")
    assert (change["op"], change["path"]) == ("add", "/spec/historyServerOptions")
    job["spec"]["rayClusterSpec"]["historyServerOptions"] = change["value"]
    assert [problem for resource in (job, *server) for problem in problems(resource)] == []
    (deployment,) = [each for each in server if each["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    options = change["value"]["collectorOptions"]
    assert container["env"] == options["env"]
    assert container["image"].split(":")[1] == options["image"].split(":")[1]
    assert container["securityContext"] == CONFINED
    literals = load(KUBERNETES / "settings/kustomization.yaml")[0]["configMapGenerator"][0]["literals"]
    keys = {variable["valueFrom"]["configMapKeyRef"]["key"] for variable in options["env"] if "valueFrom" in variable}
    assert keys <= {literal.split("=")[0] for literal in literals}
    if KUSTOMIZE:
        copy = shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
        settings = copy / "settings/kustomization.yaml"
        settings.write_text(settings.read_text().replace("# components: [../collector]", "components: [../collector]"))
        for overlay in (*JOBS, "cluster", "history"):
            done = subprocess.run([*KUSTOMIZE[0], str(copy / overlay)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            rendered = list(yaml.safe_load_all(done.stdout))
            assert [problem for resource in rendered for problem in problems(resource)] == []
            assert ("collectorOptions" in done.stdout) == (overlay != "history")


def test_a_mistake_is_found() -> None:
    (job,) = composed("label")
    for name, value in (("backOffLimit", 2), ("backoffLimit", "two"), ("entrypoint", ["python"])):
        assert problems({**job, "spec": job["spec"] | {name: value}})
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["resource"] = {}
    assert problems(job)
    account = load(KUBERNETES / "base/service_accounts.yaml")[0]
    assert problems(account | {"rules": []})


CONFINED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def test_what_runs_beside_ray_is_confined_too() -> None:
    (cluster,) = composed("cluster")
    assert cluster["spec"]["autoscalerOptions"]["securityContext"] == CONFINED
    _, pod = composed("data")
    assert not pod["spec"]["automountServiceAccountToken"]
    (logs,) = load(KUBERNETES / "logs/kustomization.yaml")
    (beside,) = [
        change["value"]
        for change in yaml.safe_load(logs["patches"][0]["patch"])
        if change["path"].endswith("/containers/-")
    ]
    for container in (beside, *pod["spec"]["containers"]):
        assert container["securityContext"] == CONFINED


def test_only_heads_may_talk_to_kubernetes() -> None:
    (cluster,) = composed("cluster")
    head, *workers = pods(cluster["spec"])
    assert "automountServiceAccountToken" not in head  # its autoscaler starts workers
    assert not any(worker["automountServiceAccountToken"] for worker in workers)


def test_only_those_who_submit_or_measure_reach_ray_from_outside() -> None:
    (policy,) = load(POLICY)
    spec = policy["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    among, *others = spec["ingress"]
    assert among == {"from": [{"podSelector": spec["podSelector"]}]}
    assert [[port["port"] for port in rule["ports"]] for rule in others] == [[8265], [8080]]
    assert all(rule["from"] for rule in others)
    to_each_other, *outside = spec["egress"]
    assert to_each_other == {"to": among["from"]}
    assert {port["port"] for rule in outside for port in rule["ports"]} == {53, 443, 6443}


@rendering
def test_images_may_be_named_by_digest(tmp_path: Path) -> None:
    digest = f"sha256:{'0' * 64}"
    copy = shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    settings = copy / "settings/kustomization.yaml"
    settings.write_text(settings.read_text().replace("newTag: cuda", f"digest: {digest}"))
    done = subprocess.run([*KUSTOMIZE[0], str(copy / "label")], capture_output=True, text=True, check=True)
    (job,) = [each for each in yaml.safe_load_all(done.stdout) if each["kind"] == "RayJob"]
    images = {container["image"] for pod in pods(job["spec"]["rayClusterSpec"]) for container in pod["containers"]}
    assert [image.split("@")[1] for image in images] == [digest]


DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
"""From SIGTERM on, Ray's processes live so long, half a minute by default."""


def test_pods_run_as_nobody_in_particular() -> None:
    (cluster,) = composed("cluster")
    for pod in pods(cluster["spec"]):
        assert pod["securityContext"]["runAsNonRoot"]
        (drain,) = [each["value"] for each in pod["containers"][0]["env"] if each["name"] == DRAIN]
        assert pod["terminationGracePeriodSeconds"] > int(drain) > 20  # LabelConfig.grace_s
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == CONFINED
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            scratch = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
            assert {mounts[path] for path in ("/tmp", "/home/ray", "/dev/shm")} <= scratch  # noqa: S108 - in the pod
            resources = container["resources"]
            assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert cluster["spec"]["authOptions"]["mode"] == "token"


def test_pods_fit_on_machines_with_8_cores_and_32_gib() -> None:
    """What EKS leaves for pods there: its reserves are 0.09 cores, 255 MiB + 11 for each of 58 pods, and 100 MiB."""
    (cluster,) = composed("cluster")
    (logs,) = re.findall(
        r"name: logs\n(?:.*\n)*?.*requests: (.*)", (KUBERNETES / "logs/kustomization.yaml").read_text()
    )
    (collector,) = re.findall(r"requests: (.*)", (KUBERNETES / "collector/kustomization.yaml").read_text())
    in_each, at_head = [yaml.safe_load(collector)], cluster["spec"]["autoscalerOptions"]["resources"]["requests"]
    for pod, beside in zip(pods(cluster["spec"]), ([at_head, yaml.safe_load(logs)], [], []), strict=True):
        requests = [pod["containers"][0]["resources"]["requests"], *in_each, *beside]
        cores, gib = (sum(amount(each[name]) for each in requests) for name in ("cpu", "memory"))
        assert cores < 7.91 - 0.3  # daemon sets
        assert gib < 31 - (255 + 11 * 58 + 100) / 1024 - 1  # firmware and kernel; daemon sets


def amount(quantity: str) -> float:
    """Returns cores, or GiB."""
    units = {"m": 1e-3, "Mi": 1 / 1024, "Gi": 1.0}
    return next(
        (float(quantity.removesuffix(unit)) * size for unit, size in units.items() if quantity.endswith(unit)), 0
    ) or float(quantity)


def test_a_job_of_last_night_does_not_stay_for_ever() -> None:
    (job,) = composed("nightly")
    rules = job["spec"]["jobTemplate"]["deletionStrategy"]["deletionRules"]
    ends = {rule["condition"].get("jobStatus") or rule["condition"]["jobDeploymentStatus"] for rule in rules}
    for end in ends:
        its = [rule for rule in rules if end in rule["condition"].values()]
        times = [rule["condition"]["ttlSeconds"] for rule in its]
        assert [rule["policy"] for rule in its] == ["DeleteCluster", "DeleteSelf"]
        assert times == sorted(times)
    assert ends == {"SUCCEEDED", "Failed"}
    assert "shutdownAfterJobFinishes" not in job["spec"]["jobTemplate"]  # KubeRay refuses both together


def test_jobs_find_machines_for_what_they_ask() -> None:
    (cluster,) = composed("cluster")
    gpus = {
        group["groupName"]: int(
            group["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", 0)
        )
        * group["maxReplicas"]
        for group in cluster["spec"]["workerGroupSpecs"]
    }
    label = yaml.safe_load((KUBERNETES / "settings/label.yaml").read_text())
    assert 0 < label["model_gpus"] * label["model_actors"] <= gpus["gpu"]
    paper = yaml.safe_load((INFRA.parent / "jobs/configs/paper/stage_1.yaml").read_text())
    assert paper["workers"] * paper["gpus_per_worker"] <= gpus["gpu"]


def test_versions_are_those_that_are_tested() -> None:
    pins = dict(line.split("==") for line in (INFRA / "constraints.txt").read_text().splitlines() if "==" in line)
    (cluster,) = composed("cluster")
    assert cluster["spec"]["rayVersion"] == pins["ray"]


def test_metrics_are_collected_where_they_are_served() -> None:
    (monitor,) = load(INFRA / "monitoring/pod_monitor.yaml")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (cluster,) = composed("cluster")
    for pod in pods(cluster["spec"]):
        ports = {port["name"]: port["containerPort"] for container in pod["containers"] for port in container["ports"]}
        assert ports[endpoint["port"]] == 8080  # KubeRay's --metrics-export-port
    (generator,) = yaml.safe_load((INFRA / "monitoring/kustomization.yaml").read_text())["configMapGenerator"]
    assert all((INFRA / "monitoring" / file).is_file() for file in generator["files"])


def test_settings_name_their_files() -> None:
    kustomization = yaml.safe_load((KUBERNETES / "settings/kustomization.yaml").read_text())
    _, settings = kustomization["configMapGenerator"]
    files = {file.name for file in (KUBERNETES / "settings").iterdir()} - {"kustomization.yaml"}
    assert set(settings["files"]) == files
