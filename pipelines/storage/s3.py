"""Objects of S3, by URIs s3://bucket/key whose keys stand as they are, never percent-encoded; the one file with boto3.

Where S3 is and who asks is said by the standard AWS configuration: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION,
AWS_PROFILE, keys, roles. What cannot be done is an `OSError` that has the URI as its file name and the remedy as its
text; neither has credentials or signed addresses in it.
"""

import errno
import functools
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's, as are the others
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)

ATTEMPTS = 10
"""Of a request, and of a body that brings nothing new."""

READ_TIMEOUT_S = 30.0
"""Silence after which a connection is given up, seconds."""

PART_BYTES = 16 * 2**20
"""Size of the parts of a multipart upload, and of what is uploaded in one piece at most."""

_CHUNK_BYTES = 2**16  # so much of what has come is lost where a body falls silent
_SCHEME = "s3://"

_NOT_THERE = (errno.ENOENT, "there is no such object or bucket")
_REFUSED = (errno.EACCES, "the credentials are refused; renew them, or check the keys, the clock and AWS_ENDPOINT_URL")
_DENIED = (errno.EACCES, "access is denied; grant the rights that docs/output.md lists")
_CHANGED = (errno.ESTALE, "it changed while it was read; run again")
_ELSEWHERE = (errno.EREMOTE, "its bucket is in another region; set AWS_REGION")
_CODES = {
    "404": _NOT_THERE,
    "NoSuchKey": _NOT_THERE,
    "NoSuchBucket": (errno.ENOENT, "there is no such bucket; check its name and AWS_ENDPOINT_URL"),
    "403": _DENIED,
    "AccessDenied": _DENIED,
    "ExpiredToken": _REFUSED,
    "InvalidAccessKeyId": _REFUSED,
    "InvalidToken": _REFUSED,
    "RequestTimeTooSkewed": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
    "412": _CHANGED,
    "PreconditionFailed": _CHANGED,
    "301": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "PermanentRedirect": _ELSEWHERE,
    "KeyTooLongError": (errno.ENAMETOOLONG, "its key is longer than 1,024 bytes; shorten it"),
}


@dataclass(frozen=True, kw_only=True)
class S3Object:
    """An object that is there.

    Attributes:
        uri: Where.
        size: Bytes.
        etag: What its content is known by, with S3's quotes.
    """

    uri: str
    size: int
    etag: str


def is_s3(uri: str) -> bool:
    """Whether it is a URI of S3."""
    return uri.startswith(_SCHEME)


def split(uri: str) -> tuple[str, str]:
    """Bucket and key, which may be empty.

    Raises:
        ValueError: there is no bucket in it.
    """
    bucket, _, key = uri.removeprefix(_SCHEME).partition("/")
    if not is_s3(uri) or not bucket:
        raise ValueError(f"{uri}: names no bucket; give s3://bucket/key")
    return bucket, key


def list_objects(prefix: str, *, delimiter: str = "") -> Iterator[S3Object]:
    """Objects whose URI begins with the prefix, in the order of their UTF-8 bytes; a request per thousand.

    Args:
        prefix: URI, which need not end at a slash.
        delimiter: those that have it behind the prefix are left out.

    Raises:
        OSError: see above.
    """
    bucket, key = split(prefix)
    with _told(prefix):
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key, Delimiter=delimiter)
        for page in pages:
            for found in page.get("Contents", ()):
                yield S3Object(uri=f"{_SCHEME}{bucket}/{found['Key']}", size=found["Size"], etag=found["ETag"])


def head(uri: str) -> S3Object:
    """One object, without its content.

    Raises:
        FileNotFoundError: it is not there.
        OSError: see above.
    """
    bucket, key = split(uri)
    with _told(uri):
        answer = _client().head_object(Bucket=bucket, Key=key)
    return S3Object(uri=uri, size=answer["ContentLength"], etag=answer["ETag"])


def download(uri: str, file: BinaryIO, *, etag: str | None = None) -> str:
    """Writes an object's content to an empty file; where its body breaks off or falls silent, goes on from there.

    Args:
        uri: where it is.
        file: open for writing, to be positioned anew.
        etag: the content that is wanted; whatever is there if not given.

    Returns:
        The content's ETag.

    Raises:
        FileNotFoundError: it is not there.
        OSError: it is not that content or became another while it was read, and see above.
    """
    bucket, key = split(uri)
    done, size, fruitless = 0, None, 0
    while done != size:
        conditions = ({"Range": f"bytes={done}-"} if done else {}) | ({"IfMatch": etag} if etag else {})
        with _told(uri):
            answer = _client().get_object(Bucket=bucket, Key=key, **conditions)
        resumed = "ContentRange" in answer  # a server may know neither ranges nor If-Match
        whole = int(answer["ContentRange"].rpartition("/")[2]) if resumed else answer["ContentLength"]
        if etag not in (None, answer["ETag"]) or size not in (None, whole):
            raise OSError(*_CHANGED, uri)
        etag, size, begin = answer["ETag"], whole, done if resumed else 0
        file.seek(begin)
        end, trouble = _copy(answer["Body"], file, begin)
        fruitless = 0 if end > done else fruitless + 1
        done = end
        if done != size:
            if fruitless == ATTEMPTS:
                text = f"its body broke off at byte {done} of {size}, {ATTEMPTS} times ({trouble}); check the network"
                raise OSError(errno.EIO, text, uri)
            time.sleep(min(0.1 * 2**fruitless, 10))
    assert etag is not None, "of the last answer"
    return etag


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """A temporary file with an object's content; raises as `download`."""
    with tempfile.TemporaryDirectory(prefix="openvis-s3-") as folder:
        path = Path(folder, "content")
        with path.open("wb") as file:
            download(uri, file)
        yield path


def upload(source: Path, uri: str) -> None:
    """Puts a local file in place, in parts if it is large; the object appears whole or not at all.

    S3 checks a CRC32 of what it gets.

    Raises:
        OSError: see above.
    """
    bucket, key = split(uri)
    with _told(uri), create_transfer_manager(_client(), _TRANSFER) as manager:
        manager.upload(str(source), bucket, key).result()


def remove(uri: str) -> None:
    """Removes an object, if it is there.

    Raises:
        OSError: see above.
    """
    bucket, key = split(uri)
    with _told(uri):
        _client().delete_object(Bucket=bucket, Key=key)


def read_tagged(uri: str) -> tuple[bytes, str] | None:
    """Content and ETag of a small object; None if it is not there.

    Raises:
        OSError: see above.
    """
    with tempfile.TemporaryFile() as file:
        try:
            etag = download(uri, file)
        except FileNotFoundError:
            return None
        file.seek(0)
        return file.read(), etag


def replace_tagged(uri: str, data: bytes, etag: str | None) -> str | None:
    """Writes a small object if it still has an ETag, or, for None, if it is not there.

    Args:
        uri: where.
        data: content, which nobody else may write: that is how a writer whose answer was lost knows its own.
        etag: what was there.

    Returns:
        Its new ETag; None if it was not written, because another writer was first.

    Raises:
        OSError: see above.
    """
    bucket, key = split(uri)
    condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    with _told(uri):
        try:
            answer = _client().put_object(Bucket=bucket, Key=key, Body=data, **condition)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (404, 409, 412):
                raise
            found = read_tagged(uri)  # ours, if it was the answer that was lost, and the request sent again
            return found[1] if found and found[0] == data else None
    new: str = answer["ETag"]
    return new


def custom_endpoint() -> str | None:
    """Address of an S3 that is configured and not Amazon's, for those who do not read the configuration themselves."""
    standard = _new_client(Config(ignore_configured_endpoint_urls=True)).meta.endpoint_url
    configured: str = _client().meta.endpoint_url
    return None if configured == standard else configured


def region() -> str:
    """The configured region, or what stands for one at an endpoint of one's own."""
    name: str = _client().meta.region_name
    return name


_TRANSFER = TransferConfig(
    multipart_threshold=PART_BYTES,
    multipart_chunksize=PART_BYTES,
    max_concurrency=4,
    preferred_transfer_client="classic",  # the other one does not take our settings
)


@functools.cache
def _client() -> Any:
    """Of this process; it may be used by several threads."""
    return _new_client(
        Config(
            retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
            connect_timeout=10,
            read_timeout=READ_TIMEOUT_S,
            max_pool_connections=32,
        )
    )


def _new_client(config: Config) -> Any:
    try:
        session = boto3.session.Session(region_name=os.environ.get("AWS_REGION"))  # which boto3 does not read itself
        return session.client("s3", config=config)
    except ProfileNotFound as error:
        raise ValueError(f"AWS_PROFILE: {error}; choose one of those in ~/.aws/config") from None
    except ValueError:
        raise ValueError("AWS_ENDPOINT_URL: is no address; give https://host:port") from None


def _copy(body: Any, file: BinaryIO, begin: int) -> tuple[int, str]:
    """Copies a body to its end or to where it breaks off; returns the position there, and what the trouble was."""
    done = begin
    while True:
        try:
            chunk = body.read(_CHUNK_BYTES)
        except FlexibleChecksumError as error:  # of the whole
            return 0, type(error).__name__
        except Exception as error:  # of botocore, of urllib3, of sockets: neither is read on
            body.close()
            return done, type(error).__name__
        if not chunk:
            return done, "too short"
        file.write(chunk)
        done += len(chunk)


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Turns errors into this module's. Texts of a server or of boto3 are left out: they may hold what is secret."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        unknown = (errno.EIO, f"S3 answers {code} at {_endpoint()}; try again, or check AWS_ENDPOINT_URL")
        raise OSError(*_CODES.get(code, unknown), uri) from None
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        text = (
            f"no credentials ({type(error).__name__}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
        raise OSError(errno.EACCES, text, uri) from None
    except SSLError:
        text = f"the certificate of {_endpoint()} is not trusted; set AWS_CA_BUNDLE to who signed it"
        raise OSError(errno.EPROTO, text, uri) from None
    except (ConnectionError, HTTPClientError) as error:
        text = f"{_endpoint()} cannot be reached ({type(error).__name__}); check AWS_ENDPOINT_URL and the network"
        raise OSError(errno.EHOSTUNREACH, text, uri) from None
    except BotoCoreError as error:
        raise OSError(errno.EIO, f"boto3 refuses ({type(error).__name__}); check the name", uri) from None


def _endpoint() -> str:
    address = urlsplit(_client().meta.endpoint_url)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}"
