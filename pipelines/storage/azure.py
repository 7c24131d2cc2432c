"""Objects on Azure Blob Storage, a `Cloud`. The only file that imports azure.

az://container/key is in the account that AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING names,
abfss://container@account.dfs.core.windows.net/key in the one that it names itself. Credentials are those of the
connection string, or AZURE_STORAGE_KEY, or AZURE_STORAGE_SAS_TOKEN, or else Azure's default ones: AZURE_CLIENT_ID and
its like, a managed identity, `az login`.
"""

import errno
import functools
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.identity import CredentialUnavailableError, DefaultAzureCredential
from azure.storage.blob import BlobPrefix, BlobServiceClient, ContentSettings, LinearRetry

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

ATTEMPTS = 10
"""Attempts per request."""

PAUSE_S = 2.0
"""Mean pause between attempts, seconds."""

_ABFSS = re.compile(r"abfss://([^@/]+)@([^./]+)\.dfs\.([^/]+)(?:/(.*))?", re.DOTALL)
_UPLOADERS = 4  # parts at a time
_KEYS = "set AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING, or run az login"
_REFUSED = (errno.EACCES, f"the credentials are refused; {_KEYS}")
_CODES = {
    "ContainerNotFound": (errno.ENOENT, "there is no such container; check its name and the account"),
    "AuthenticationFailed": _REFUSED,
    "AuthorizationFailure": (errno.EACCES, f"the credentials or this machine's address are refused; {_KEYS}"),
    "InvalidAuthenticationInfo": _REFUSED,
    "NoAuthenticationInformation": _REFUSED,
}
_STATUSES = {401: _REFUSED, 403: DENIED, 404: ABSENT, 412: CHANGED, 416: NO_SUCH_BYTES}


class Azure(RangeCloud):
    """Azure Blob Storage."""

    def check(self, uri: str, /) -> str:
        """See `Cloud`."""
        return _split(uri)[2]

    def list_objects(self, prefix: str, *, delimiter: str = "") -> Iterator[CloudObject]:
        """See `Cloud`; leaves out the folders that accounts with a hierarchical namespace list."""
        _, container, key = _split(prefix)
        root = prefix.removesuffix(key).rstrip("/")
        with _explained(prefix):
            client = _service(prefix).get_container_client(container)
            find = functools.partial(client.walk_blobs, delimiter=delimiter) if delimiter else client.list_blobs
            for blob in find(name_starts_with=key or None, include=["metadata"]):
                if not isinstance(blob, BlobPrefix) and (blob.metadata or {}).get("hdi_isfolder") != "true":
                    yield CloudObject(uri=f"{root}/{blob.name}", size=blob.size, etag=blob.etag.strip('"'))

    def head(self, uri: str) -> CloudObject:
        """See `Cloud`."""
        with _explained(uri):
            found = _blob(uri).get_blob_properties()
        return CloudObject(uri=uri, size=found.size, etag=found.etag.strip('"'))

    def read_range(self, uri: str, start: int, stop: int, *, etag: str) -> bytes:
        """See `Cloud`."""
        with _explained(uri):
            data: bytes = _blob(uri).download_blob(start, stop - start, **_if(etag)).readall()
        if len(data) != stop - start:
            raise OSError(*CHANGED, uri)
        return data

    def upload(self, source: Path, uri: str) -> None:
        """See `Cloud`."""
        with source.open("rb") as file, _explained(uri):
            settings = ContentSettings(content_type=content_type(uri))
            _blob(uri).upload_blob(file, overwrite=True, max_concurrency=_UPLOADERS, content_settings=settings)

    def remove(self, uri: str) -> None:
        """See `Cloud`."""
        try:
            with _explained(uri):
                _blob(uri).delete_blob()
        except FileNotFoundError:
            return

    def put_if(self, uri: str, data: bytes, etag: str | None) -> str | None:
        """See `RangeCloud`."""
        condition = _if(etag) if etag else {"match_condition": MatchConditions.IfMissing}
        with _explained(uri):
            try:
                answer = _blob(uri).upload_blob(data, overwrite=True, **condition)
            except HttpResponseError as error:
                if error.status_code not in (409, 412):
                    raise
                return None
        return str(answer["etag"]).strip('"')


def _split(uri: str) -> tuple[str, str, str]:
    """Returns the address of the account, empty for the one of the environment, the container and the key."""
    if found := _ABFSS.fullmatch(uri):
        container, account, domain, key = found.groups("")
        return f"https://{account}.blob.{domain}", container, key
    container, _, key = uri.removeprefix("az://").partition("/")
    if not container or not uri.startswith("az://"):
        raise ValueError(
            f"{uri}: names no container; give az://container/key or abfss://container@account.dfs.core.windows.net/key"
        )
    return "", container, key


def _if(etag: str) -> dict[str, Any]:
    return {"etag": f'"{etag}"', "match_condition": MatchConditions.IfNotModified}


def _blob(uri: str) -> Any:
    _, container, key = _split(uri)
    return _service(uri).get_blob_client(container, key)


def _service(uri: str) -> Any:
    return _client(_split(uri)[0])


@functools.cache
def _client(address: str) -> Any:
    """Returns the client of this process for an account, for all its threads.

    Args:
        address: of the account; empty is the one of the environment.

    Raises:
        ValueError: the environment names no account, or its connection string is none.
    """
    logging.getLogger("azure").setLevel(logging.CRITICAL)  # it tells what it tried, we tell what to do
    kinds = dict.fromkeys(("retry_connect", "retry_read", "retry_status"), ATTEMPTS - 1)  # of errors; 3 each otherwise
    options: dict[str, Any] = {
        "retry_policy": LinearRetry(PAUSE_S, ATTEMPTS - 1, random_jitter_range=PAUSE_S, **kinds),
        "connection_timeout": 10,
        "read_timeout": cloud.READ_TIMEOUT_S,
        "max_single_put_size": PART_BYTES,
        "max_block_size": PART_BYTES,
    }
    text, account = os.environ.get("AZURE_STORAGE_CONNECTION_STRING"), os.environ.get("AZURE_STORAGE_ACCOUNT")
    if text:
        try:
            client = BlobServiceClient.from_connection_string(text, **options)
        except ValueError:
            raise ValueError("AZURE_STORAGE_CONNECTION_STRING: is none; copy it from the account's keys") from None
        if not address or address.startswith(f"https://{client.account_name}.blob."):
            return client
    if not address and not account:
        raise ValueError(
            "AZURE_STORAGE_ACCOUNT: is not set; set it to the name of the account of az://, "
            "or give abfss://container@account.dfs.core.windows.net/path"
        )
    return BlobServiceClient(address or f"https://{account}.blob.core.windows.net", _credential(), **options)


def _credential() -> Any:
    key, token = os.environ.get("AZURE_STORAGE_KEY"), os.environ.get("AZURE_STORAGE_SAS_TOKEN")
    return key or token or DefaultAzureCredential()


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turns errors of Azure's libraries into those of `cloud`."""
    try:
        yield
    except CredentialUnavailableError:
        raise OSError(errno.EACCES, f"no credentials; {_KEYS}", uri) from None
    except HttpResponseError as error:
        if isinstance(error, ClientAuthenticationError) and error.status_code is None:  # none of the default ones
            raise OSError(errno.EACCES, f"no credentials; {_KEYS}", uri) from None
        if isinstance(error, IncompleteReadError):
            raise _away(error, uri) from None
        raise _of_status(error, uri) from None
    except (ServiceRequestError, ServiceResponseError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            text = "the certificate of the server is not trusted; set REQUESTS_CA_BUNDLE to who signed it"
            raise OSError(errno.EPROTO, text, uri) from None
        raise _away(error, uri) from None


def _away(error: Exception, uri: str) -> OSError:
    text = f"Azure cannot be reached ({type(error).__name__}); check AZURE_STORAGE_ACCOUNT and the network"
    return OSError(errno.EHOSTUNREACH, text, uri)


def _of_status(error: HttpResponseError, uri: str) -> OSError:
    status, code = error.status_code or 0, str(getattr(error.error_code, "value", error.error_code or ""))
    number = errno.EHOSTUNREACH if status in (429, 500, 502, 503, 504) else errno.EIO
    unknown = (number, f"Azure answers {code or status}; try again, or check the name")
    return OSError(*(_CODES.get(code) or _STATUSES.get(status, unknown)), uri)
