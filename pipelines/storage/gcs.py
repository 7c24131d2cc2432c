"""Objects on Google Cloud Storage, a `Cloud`. The only file that imports google.

Credentials are Google's application default ones: GOOGLE_APPLICATION_CREDENTIALS, those of `gcloud auth
application-default login`, or the service account of the machine or pod. STORAGE_EMULATOR_HOST is another endpoint,
which needs none. An ETag is the object's generation.
"""

import errno
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from pipelines.storage import cloud
from pipelines.storage.cloud import (
    ABSENT,
    CHANGED,
    DENIED,
    NO_SUCH_BYTES,
    PART_BYTES,
    CloudObject,
    RangeCloud,
    content_type,
)

PATIENCE_S = 120.0
"""How long a request is repeated, seconds."""

_SCHEME = "gs://"
_LOGIN = "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to a key file"
_LISTED = "items(name,size,generation),nextPageToken"
_STATUSES = {
    401: (errno.EACCES, f"the credentials are refused; {_LOGIN}"),
    403: DENIED,
    404: ABSENT,
    412: CHANGED,
    416: NO_SUCH_BYTES,
}


class Gcs(RangeCloud):
    """Google Cloud Storage."""

    def check(self, uri: str, /) -> str:
        """See `Cloud`."""
        return _split(uri)[1]

    def list_objects(self, prefix: str, *, delimiter: str = "") -> Iterator[CloudObject]:
        """See `Cloud`."""
        bucket, key = _split(prefix)
        with _explained(prefix):
            blobs = _client().list_blobs(
                bucket, prefix=key or None, delimiter=delimiter or None, fields=_LISTED, **_patience()
            )
            for blob in blobs:
                yield CloudObject(uri=f"{_SCHEME}{bucket}/{blob.name}", size=blob.size, etag=str(blob.generation))

    def head(self, uri: str) -> CloudObject:
        """See `Cloud`."""
        blob = _blob(uri)
        with _explained(uri):
            blob.reload(**_patience())
        return CloudObject(uri=uri, size=blob.size, etag=str(blob.generation))

    def read_range(self, uri: str, start: int, stop: int, *, etag: str) -> bytes:
        """See `Cloud`."""
        blob = _blob(uri)
        with _explained(uri):
            data: bytes = blob.download_as_bytes(
                start=start,
                end=stop - 1,
                if_generation_match=int(etag),
                raw_download=True,  # an object with a content encoding as it is
                checksum=None,  # there is none of a range
                **_patience(),
            )
        if len(data) != stop - start or str(blob.generation) != etag:
            raise OSError(*CHANGED, uri)
        return data

    def upload(self, source: Path, uri: str) -> None:
        """See `Cloud`; Google compares a CRC32C of what it receives."""
        blob = _blob(uri)
        blob.chunk_size = PART_BYTES
        with _explained(uri):
            blob.upload_from_filename(str(source), content_type=content_type(uri), checksum="crc32c", **_patience())

    def remove(self, uri: str) -> None:
        """See `Cloud`."""
        blob = _blob(uri)
        try:
            with _explained(uri):
                blob.delete(**_patience())
        except FileNotFoundError:
            return

    def put_if(self, uri: str, data: bytes, etag: str | None) -> str | None:
        """See `RangeCloud`."""
        blob = _blob(uri)
        with _explained(uri):
            try:
                blob.upload_from_string(
                    data, if_generation_match=int(etag or 0), checksum="crc32c", **_patience()
                )  # generation 0 is absence
            except GoogleAPICallError as error:
                if error.code != 412:
                    raise
                return None
        return str(blob.generation)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(_SCHEME).partition("/")
    if not bucket:
        raise ValueError(f"{uri}: names no bucket; give gs://bucket/key")
    return bucket, key


def _blob(uri: str) -> Any:
    bucket, key = _split(uri)
    with _explained(uri):
        return _client().bucket(bucket).blob(key)


def _patience() -> dict[str, Any]:
    """Returns how long a request waits and is repeated; all of ours may be."""
    retry = DEFAULT_RETRY.with_predicate(_may_pass).with_delay(initial=0.1, maximum=10).with_timeout(PATIENCE_S)
    return {"timeout": (10, cloud.READ_TIMEOUT_S), "retry": retry}


def _may_pass(error: Exception) -> bool:
    return not _is_untrusted(error) and bool(DEFAULT_RETRY._predicate(error))


def _is_untrusted(error: Exception) -> bool:
    """Returns whether an error is of the server's certificate; other errors of TLS may pass."""
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


@functools.cache
def _client() -> Any:
    """Returns the client of this process, for all its threads."""
    return storage.Client(project=None)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turns errors of Google's libraries into those of `cloud`."""
    try:
        yield
    except DefaultCredentialsError:
        raise OSError(errno.EACCES, f"no credentials; {_LOGIN}", uri) from None
    except GoogleAPICallError as error:
        raise _of_status(error.code, uri) from None
    except InvalidResponse as error:
        raise _of_status(error.response.status_code, uri) from None
    except (requests.RequestException, TransportError, RetryError) as error:
        if _is_untrusted(error):
            text = "the certificate of the server is not trusted; set REQUESTS_CA_BUNDLE to who signed it"
            raise OSError(errno.EPROTO, text, uri) from None
        text = f"Google Cloud Storage cannot be reached ({type(error).__name__}); check the network"
        raise OSError(errno.EHOSTUNREACH, text, uri) from None
    except GoogleAuthError as error:
        text = f"the credentials are refused ({type(error).__name__}); {_LOGIN}"
        raise OSError(errno.EACCES, text, uri) from None
    except DataCorruption:
        raise OSError(errno.EIO, "it was damaged on its way; run again", uri) from None


def _of_status(status: int | None, uri: str) -> OSError:
    number = errno.EHOSTUNREACH if status in (429, 500, 502, 503, 504) else errno.EIO
    unknown = (number, f"Google Cloud Storage answers {status}; try again, or check the name")
    return OSError(*_STATUSES.get(status or 0, unknown), uri)
