"""Objects on S3, a `Cloud`. The only file that imports boto3.

Endpoint, region and credentials come from the standard AWS configuration: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL,
AWS_REGION, AWS_PROFILE, keys, roles.
"""

import errno
import functools
import io
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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
from urllib3.exceptions import HTTPError as TransportError

from pipelines.storage.cloud import (
    ABSENT,
    CHANGED,
    DENIED,
    NO_SUCH_BYTES,
    PART_BYTES,
    READ_TIMEOUT_S,
    CloudObject,
    content_type,
    read_small,
)

ATTEMPTS = 10
"""Attempts per request, and per download that makes no progress."""

_CHUNK_BYTES = 2**16  # at most this much is fetched again after a stall
_SCHEME = "s3://"

_REFUSED = (errno.EACCES, "the credentials are refused; renew them, or check the keys, the clock and AWS_ENDPOINT_URL")
_ELSEWHERE = (errno.EREMOTE, "its bucket is in another region; set AWS_REGION")
_CODES = {
    "404": ABSENT,
    "NoSuchKey": ABSENT,
    "NoSuchBucket": (errno.ENOENT, "there is no such bucket; check its name and AWS_ENDPOINT_URL"),
    "403": DENIED,
    "AccessDenied": DENIED,
    "ExpiredToken": _REFUSED,
    "InvalidAccessKeyId": _REFUSED,
    "InvalidToken": _REFUSED,
    "RequestTimeTooSkewed": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
    "InvalidRange": NO_SUCH_BYTES,
    "412": CHANGED,
    "PreconditionFailed": CHANGED,
    "301": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "PermanentRedirect": _ELSEWHERE,
    "KeyTooLongError": (errno.ENAMETOOLONG, "its key is longer than 1,024 bytes; shorten it"),
}


def check(uri: str) -> str:
    """See `Cloud`."""
    return split(uri)[1]


def split(uri: str) -> tuple[str, str]:
    """Returns the bucket and the key, which may be empty.

    Raises:
        ValueError: the URI names no bucket.
    """
    bucket, _, key = uri.removeprefix(_SCHEME).partition("/")
    if not uri.startswith(_SCHEME) or not bucket:
        raise ValueError(f"{uri}: names no bucket; give s3://bucket/key")
    return bucket, key


def list_objects(prefix: str, *, delimiter: str = "") -> Iterator[CloudObject]:
    """Yields the objects whose URI begins with a prefix, in the order of their UTF-8 bytes; one request per thousand.

    Args:
        prefix: a URI; it need not end at a slash.
        delimiter: leaves out objects that have it after the prefix.

    Raises:
        OSError: see above.
    """
    bucket, key = split(prefix)
    with _explained(prefix):
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key, Delimiter=delimiter)
        for page in pages:
            for entry in page.get("Contents", ()):
                yield CloudObject(uri=f"{_SCHEME}{bucket}/{entry['Key']}", size=entry["Size"], etag=entry["ETag"])


def head(uri: str) -> CloudObject:
    """Returns size and ETag of an object.

    Raises:
        FileNotFoundError: the object is absent.
        OSError: see above.
    """
    bucket, key = split(uri)
    with _explained(uri):
        answer = _client().head_object(Bucket=bucket, Key=key)
    return CloudObject(uri=uri, size=answer["ContentLength"], etag=answer["ETag"])


def download(uri: str, file: BinaryIO | io.BytesIO, *, etag: str | None = None) -> str:
    """Writes an object's content to an empty file; resumes where its body breaks off or falls silent.

    Args:
        uri: the object.
        file: open for writing.
        etag: the content to download; whatever the object holds if None.

    Returns:
        The content's ETag.

    Raises:
        FileNotFoundError: the object is absent.
        OSError: the object has another content or changed during the download; see above for others.
    """
    return _receive(uri, file, 0, None, etag).etag


def read_range(uri: str, start: int, stop: int, *, etag: str) -> bytes:
    """Reads the bytes from `start` to `stop` of an object; raises as `download`."""
    file = io.BytesIO()
    _receive(uri, file, start, stop, etag)
    return file.getvalue()


def read_tail(uri: str, length: int) -> tuple[bytes, CloudObject]:
    """Reads the last bytes of an object in one request, which also brings its size and ETag; raises as `download`.

    Args:
        uri: the object.
        length: number of bytes; a smaller object is read whole.
    """
    file = io.BytesIO()
    try:
        entry = _receive(uri, file, -length, None, None)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        return b"", head(uri)  # an empty object has no last bytes
    return file.getvalue(), entry


def _receive(uri: str, file: BinaryIO | io.BytesIO, start: int, stop: int | None, etag: str | None) -> CloudObject:
    """Writes the bytes from `start` to `stop` of an object to an empty file; a negative start counts from the end."""
    bucket, key = split(uri)
    done, size, fruitless = start, None, 0
    while size is None or done != stop:
        conditions = {"IfMatch": etag} if etag else {}
        if done < 0:
            conditions["Range"] = f"bytes={done}"
        elif done or stop is not None:
            conditions["Range"] = f"bytes={done}-{'' if stop is None else stop - 1}"
        answer = _get(uri, Bucket=bucket, Key=key, **conditions)
        begin, whole = _extent(answer)
        if etag not in (None, answer["ETag"]) or size not in (None, whole):
            raise OSError(*CHANGED, uri)
        if size is None:
            start = max(0, start + whole) if start < 0 else start
            done, stop = start, whole if stop is None else min(stop, whole)
        etag, size = answer["ETag"], whole
        assert stop is not None, "of the first answer"
        file.seek(done - start)
        end, trouble = _copy(answer["Body"], file, skip=done - begin, length=stop - done)
        end = start if end is None else done + end
        fruitless = 0 if end > done else fruitless + 1
        done = end
        if done != stop:
            if fruitless == ATTEMPTS:
                text = f"its body broke off at byte {done} of {size}, {ATTEMPTS} times ({trouble}); check the network"
                raise OSError(errno.EHOSTUNREACH, text, uri)
            time.sleep(min(0.1 * 2**fruitless, 10))
    assert etag is not None, "of the last answer"
    return CloudObject(uri=uri, size=size, etag=etag)


def _get(uri: str, **request: Any) -> Any:
    """Asks for an object; asks again if the body of an error breaks off, which botocore does not."""
    with _explained(uri):
        for _ in range(ATTEMPTS - 1):
            with suppress(TransportError):
                return _client().get_object(**request)
        return _client().get_object(**request)


def _extent(answer: Mapping[str, Any]) -> tuple[int, int]:
    """Returns where the body of an answer begins in the object, and the object's size."""
    if "ContentRange" not in answer:  # not asked for, or a server without ranges
        return 0, answer["ContentLength"]
    span, _, size = answer["ContentRange"].removeprefix("bytes ").partition("/")
    return int(span.partition("-")[0]), int(size)


def _copy(body: Any, file: BinaryIO | io.BytesIO, *, skip: int, length: int) -> tuple[int | None, str]:
    """Copies a part of a body, to its end or to where the body breaks off.

    Returns:
        Bytes that were written, None if none of the object can be trusted, and what the trouble was.
    """
    seen, stop = 0, skip + length
    trouble = "too short"
    while seen <= stop:  # at the stop it reads on: the end of the body is where its checksum is compared
        try:
            chunk = body.read(_CHUNK_BYTES)
        except FlexibleChecksumError as error:  # of the whole object
            return None, type(error).__name__
        except Exception as error:  # of botocore, of urllib3, of sockets: none can be read on
            trouble = type(error).__name__
            break
        if not chunk:
            return max(0, seen - skip), trouble
        file.write(chunk[max(0, skip - seen) : stop - seen])
        seen += len(chunk)
    body.close()
    return max(0, min(seen, stop) - skip), trouble


def upload(source: Path, uri: str) -> None:
    """Uploads a local file, in parts if it is large; the object appears whole or not at all.

    S3 compares a CRC32 of what it receives.

    Raises:
        OSError: see above.
    """
    bucket, key = split(uri)
    with _explained(uri), create_transfer_manager(_client(), _TRANSFER) as manager:
        manager.upload(str(source), bucket, key, extra_args={"ContentType": content_type(key)}).result()


def remove(uri: str) -> None:
    """Removes an object if it exists.

    Raises:
        OSError: see above.
    """
    bucket, key = split(uri)
    with _explained(uri):
        _client().delete_object(Bucket=bucket, Key=key)


def read_tagged(uri: str) -> tuple[bytes, str] | None:
    """Returns content and ETag of a small object; None if it is absent.

    Raises:
        OSError: see above.
    """
    return read_small(uri, download)


def replace_tagged(uri: str, data: bytes, etag: str | None) -> str | None:
    """Writes a small object if its ETag is still `etag`, or, for None, if it is absent.

    Args:
        uri: the object.
        data: content that no other writer uses: a writer whose answer was lost recognises its own by it.
        etag: ETag of the content that is replaced.

    Returns:
        The new ETag; None if another writer was first.

    Raises:
        OSError: see above.
    """
    bucket, key = split(uri)
    condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    with _explained(uri):
        try:
            answer = _client().put_object(Bucket=bucket, Key=key, Body=data, **condition)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 501:
                raise OSError(errno.ENOTSUP, "the server has no conditional writes; use one that has", uri) from None
            if status not in (404, 409, 412) or error.response.get("Error", {}).get("Code") == "NoSuchBucket":
                raise
            current = read_tagged(uri)  # our own content, if the answer was lost and the request sent again
            return current[1] if current and current[0] == data else None
    new: str = answer["ETag"]
    return new


_TRANSFER = TransferConfig(
    multipart_threshold=PART_BYTES,
    multipart_chunksize=PART_BYTES,
    max_concurrency=4,
    preferred_transfer_client="classic",  # the other one does not take our settings
)


@functools.cache
def _client() -> Any:
    """Returns the client of this process, for all its threads."""
    config = Config(
        retries={"mode": "adaptive", "total_max_attempts": ATTEMPTS},
        connect_timeout=10,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=32,
    )
    try:
        session = boto3.session.Session(region_name=os.environ.get("AWS_REGION"))  # boto3 does not read it
        return session.client("s3", config=config)
    except ProfileNotFound as error:
        raise ValueError(f"AWS_PROFILE: {error}; choose one of those in ~/.aws/config") from None
    except ValueError:
        raise ValueError("AWS_ENDPOINT_URL: is not an address; give https://host:port") from None


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turns errors of boto3 into this module's, without texts of boto3 or the server: those may contain secrets."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        away = error.response["ResponseMetadata"]["HTTPStatusCode"] in (429, 500, 502, 503, 504)
        number = errno.EHOSTUNREACH if away else errno.EIO
        unknown = (number, f"S3 answers {code} at {_endpoint()}; try again, or check AWS_ENDPOINT_URL")
        raise OSError(*_CODES.get(code, unknown), uri) from None
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        text = (
            f"no credentials ({type(error).__name__}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
        raise OSError(errno.EACCES, text, uri) from None
    except SSLError:
        text = f"the certificate of {_endpoint()} is not trusted; set AWS_CA_BUNDLE to who signed it"
        raise OSError(errno.EPROTO, text, uri) from None
    except (ConnectionError, HTTPClientError, TransportError) as error:
        text = f"{_endpoint()} cannot be reached ({type(error).__name__}); check AWS_ENDPOINT_URL and the network"
        raise OSError(errno.EHOSTUNREACH, text, uri) from None
    except BotoCoreError as error:
        raise OSError(errno.EIO, f"boto3 refuses ({type(error).__name__}); check the name", uri) from None


def _endpoint() -> str:
    address = urlsplit(_client().meta.endpoint_url)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}"
