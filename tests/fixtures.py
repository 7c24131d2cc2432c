"""The fixtures of all tests."""

import gc
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import jaxtyping
import pytest
import ray
import torch

import tests.preload  # noqa: F401 # isort: skip # before any package that the import hook instruments

from openvis_model.config import InstFormerConfig, mini
from openvis_model.inst_former import InstFormer
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import Vocabulary, VocabularyEmbedding
from pipelines.storage import s3
from tests import hub
from tests.pipelines.storage import clouds
from tests.pipelines.storage.s3_server import SECRET, Outage, Proxy, start_server
from tests.waiting import wait_until
from tests.words import NAMES, WORDS

CPUS = 5  # logical ones: places for what a test starts


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seeds what a test and its fixtures draw, so that they draw the same on every run, alone or among others."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # files of tests run beside each other


@pytest.fixture(scope="session", autouse=True)
def own_ray() -> Iterator[None]:
    """A folder of Ray's for this test process: Ray notes there which cluster runs, and other processes join it."""
    folder = tempfile.mkdtemp(prefix="ov-")  # sockets need a short path
    os.environ["RAY_TMPDIR"] = folder
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, which all files of a test process share; a file must leave no actor behind.

    It is told of a GPU, for tests of what happens around one.
    """
    if not ray.is_initialized() or ray.cluster_resources()["CPU"] != CPUS:
        ray.shutdown()
        ray.init(address="local", num_cpus=CPUS, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    if ray.is_initialized():  # unless the file's last test was one of `no_cluster`
        gc.collect()  # the traceback of an error that a test expected may hold an actor
        wait_until(lambda: ray.available_resources().get("CPU", 0) == CPUS, "actors are left")


@pytest.fixture
def no_cluster() -> Iterator[None]:
    """Ends the shared cluster, for a test that starts its own."""
    ray.shutdown()
    yield
    ray.shutdown()


@pytest.fixture
def as_user() -> Iterator[None]:
    """Without the shape checks of the test run, as users call: the code's own checks must catch bad input."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def mini_config() -> InstFormerConfig:
    return mini(WORDS)


@pytest.fixture(scope="session")
def mini_model(mini_config: InstFormerConfig) -> InstFormer:
    """An untrained mini model; tests must not change it."""
    torch.manual_seed(1)
    return InstFormer(mini_config).eval()


@pytest.fixture(scope="session")
def vocabulary(mini_model: InstFormer) -> VocabularyEmbedding:
    return embed_vocabulary(Vocabulary(tuple((name,) for name in NAMES)), mini_model.text_encoder)


@pytest.fixture
def frames() -> torch.Tensor:
    """Five frames of 96 × 128 pixels with soft blobs, uint8 [5, 96, 128, 3]."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(5, 3, 6, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(96, 128), mode="bicubic").clamp(0, 1)
    return (smooth * 255).byte().permute(0, 2, 3, 1).contiguous()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    endpoint, stop = start_server()
    yield endpoint
    stop()


@pytest.fixture
def s3_environment(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The AWS configuration of a user whose S3 is the server."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    s3._client.cache_clear()
    yield
    s3._client.cache_clear()


@pytest.fixture
def bucket(s3_environment: None) -> str:
    """The URI of a new, empty bucket."""
    name = f"bucket-{uuid.uuid4().hex}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def outage(s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outage]:
    """S3 from now on, with a bucket `outage`; this process finds out within half a second that it is away."""
    outage = Outage()
    monkeypatch.setenv("AWS_ENDPOINT_URL", outage.url)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.5)
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    monkeypatch.setattr("pipelines.storage.outage._PAUSE_S", 0.1)
    s3._client.cache_clear()
    boto3.client("s3").create_bucket(Bucket="outage")
    yield outage
    outage.close()


@pytest.fixture
def proxy(bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The way to the server from now on."""
    proxy = Proxy(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 3.0)
    soon = {"throttling_base_scale": 0.02, "non_throttling_base_scale": 0.02}
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff._DEFAULT_BACKOFF_CONFIG", soon)
    s3._client.cache_clear()
    yield proxy
    proxy.stop()


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[str]:
    with clouds.gcs_server() as url:
        yield url


@pytest.fixture(scope="session")
def azure_server() -> Iterator[str]:
    with clouds.azure_server() as url:
        yield url


@pytest.fixture
def gcs_place(gcs_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[clouds.Place]:
    with clouds.gcs_place(gcs_server, monkeypatch) as place:
        yield place


@pytest.fixture
def azure_place(azure_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[clouds.Place]:
    with clouds.azure_place(azure_server, monkeypatch) as place:
        yield place


@pytest.fixture(params=clouds.OTHERS)
def place(request: pytest.FixtureRequest) -> clouds.Place:
    """A new, empty bucket in another cloud than S3."""
    place: clouds.Place = request.getfixturevalue(f"{request.param}_place")
    return place


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, hub.Files]:
    """What two repositories of the hub hold: small networks of the architectures of a recipe."""
    with pytest.MonkeyPatch.context() as patch:
        hub.make_clip_small(patch)
        return hub.write_repositories(tmp_path_factory.mktemp("repositories"))


@pytest.fixture
def offline(repositories: dict[str, hub.Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with the repositories, without a network; its ViT-B-32 is small."""
    hub.make_clip_small(monkeypatch)
    hub.use(monkeypatch, tmp_path / "hub", None)
    hub.write_cache(tmp_path / "hub", repositories)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "hub"
