"""Objects on any cloud, by URI: the only place that knows which scheme belongs to which cloud.

s3://bucket/key, gs://bucket/key, az://container/key, abfss://container@account.dfs.core.windows.net/key. See `cloud`
for what the functions promise.
"""

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from pipelines.storage.cloud import Cloud, CloudObject

SCHEMES = ("s3://", "gs://", "az://", "abfss://")

SUPPORTED = "local folders, s3://, gs://, az:// and abfss://"

_DOWNLOADERS = 8  # objects at a time


def is_remote(uri: str) -> bool:
    """Returns whether a path is a URI of a cloud."""
    return uri.startswith(SCHEMES)


def cloud_of(uri: str) -> Cloud:
    """Returns the cloud that a URI is of. Its library is imported now: each takes a quarter of a second.

    Raises:
        ValueError: the library is not installed, or the URI is of no cloud.
    """
    scheme = uri.partition("://")[0]
    try:
        if scheme == "s3":
            from pipelines.storage import s3

            return s3
        if scheme == "gs":
            from pipelines.storage.gcs import Gcs

            return Gcs()
        if scheme in ("az", "abfss"):
            from pipelines.storage.azure import Azure

            return Azure()
    except ModuleNotFoundError as error:
        extra = "gcs" if scheme == "gs" else "azure"
        raise ValueError(
            f"{uri}: needs {error.name}, which is not installed; run pip install --editable '.[{extra}]'"
        ) from None
    raise ValueError(f"{uri}: is of no known cloud; give {SUPPORTED.removeprefix('local folders, ')}")


def key_of(uri: str) -> str:
    """Returns the key of a URI, which may be empty.

    Raises:
        ValueError: the URI names no bucket.
    """
    return cloud_of(uri).check(uri)


def list_objects(prefix: str, *, delimiter: str = "") -> Iterator[CloudObject]:
    """Yields the objects whose URI begins with a prefix; see `Cloud`."""
    return cloud_of(prefix).list_objects(prefix, delimiter=delimiter)


def head(uri: str) -> CloudObject:
    """Returns size and ETag of an object; see `Cloud`."""
    return cloud_of(uri).head(uri)


def download_all(objects: Iterable[tuple[CloudObject, Path]]) -> None:
    """Downloads objects, several at a time, to local files; makes their folders; raises as `Cloud.download`."""
    with ThreadPoolExecutor(_DOWNLOADERS) as pool:
        for _ in pool.map(_download_one, objects):
            pass


def _download_one(task: tuple[CloudObject, Path]) -> None:
    entry, target = task
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        cloud_of(entry.uri).download(entry.uri, file, etag=entry.etag)


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """Gives a temporary file with an object's content; raises as `Cloud.download`."""
    with tempfile.TemporaryDirectory(prefix="openvis-copy-") as folder:
        path = Path(folder, "content")
        with path.open("wb") as file:
            cloud_of(uri).download(uri, file)
        yield path
