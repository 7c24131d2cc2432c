"""Reads the manifests of videos."""

import json
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from pipelines.storage import objects
from pipelines.video.names import suffix
from pipelines.video.web import check_url, is_web

MANIFEST_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet"})

_ROWS = 2**13  # of a Parquet manifest, read together
_COLUMNS = pa.schema([("uri", pa.string()), ("video_id", pa.string())])
_TEXTS = [pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null]
_VIDEO_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def read_manifest(manifest: str, *, allow_http: bool) -> Iterator[tuple[str, str, str | None]]:
    """Yields the place of each row, counted from 1 without the header, its absolute path or URI, and its id, if any.

    Raises:
        ValueError: names the row, the value and the remedy.
    """
    for number, row in enumerate(_rows(manifest), start=1):
        place = f"{manifest} row {number}"
        uri, video_id = row["uri"], row.get("video_id")
        if not uri:
            raise ValueError(f"{place}: uri is {uri!r}; give the path of a video")
        if video_id is not None and not _VIDEO_ID.fullmatch(str(video_id)):
            raise ValueError(
                f"{place}: video_id is {video_id!r}; use 1 to 128 of A-Z a-z 0-9 . _ - and no dot at the start"
            )
        if is_web(str(uri)) and not allow_http:
            raise ValueError(f"{place}: {uri}: is on the web; download it, or give --allow_http true")
        yield place, _absolute(str(uri), manifest, place), None if video_id is None else str(video_id)


def _absolute(uri: str, manifest: str, place: str) -> str:
    """Resolves a URI relative to its manifest."""
    if is_web(uri):
        try:
            check_url(uri)
        except ValueError as error:
            raise ValueError(f"{place}: {uri}: {error}") from None
        return uri
    if not objects.is_remote(uri):
        uri = path_of(uri, place)
        if os.path.isabs(uri) or not objects.is_remote(manifest):
            return os.path.join(os.path.dirname(manifest), uri)
        key = objects.key_of(manifest)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(key), uri))
        uri = f"{manifest.removesuffix(key)}{path}{'/' if uri.endswith('/') else ''}"
    if not objects.key_of(uri) or ".." in uri.split("/")[3:4]:
        raise ValueError(f"{place}: uri {uri} names no object of a bucket; give one like s3://bucket/key")
    return uri


def _rows(manifest: str) -> Iterator[dict[str, Any]]:
    """Yields `uri` and, if present, `video_id` of a manifest's rows; reads one batch at a time."""
    with objects.local_copy(manifest) if objects.is_remote(manifest) else nullcontext(Path(manifest)) as file:
        try:
            for batch in _batches(file, suffix(manifest)):
                names = batch.schema.names
                if "uri" not in names:
                    raise ValueError(
                        f"{manifest}: has no column uri, only {', '.join(names)}; name the paths' column uri"
                    )
                if blank := [name for name in names if name.strip() in _COLUMNS.names and name not in _COLUMNS.names]:
                    raise ValueError(f"{manifest}: has a column {blank[0]!r}; remove the spaces from its name")
                for field in (field for field in batch.schema if field.name in _COLUMNS.names):
                    _check_column(manifest, field, names.count(field.name))
                yield from batch.select([name for name in _COLUMNS.names if name in names]).to_pylist()
        except UnicodeDecodeError as error:
            raise ValueError(f"{manifest}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error
        except pa.ArrowException as error:
            if file.stat().st_size:  # an empty file is a source without videos
                raise ValueError(
                    f"{manifest}: cannot be read ({error}); check that it is what its name says"
                ) from error


def _check_column(manifest: str, field: pa.Field, times: int) -> None:
    """Refuses a column that is there twice, or of anything but texts; ids may also be whole numbers."""
    if times > 1:
        raise ValueError(f"{manifest}: has {times} columns {field.name}; keep one of them")
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    kinds = [*_TEXTS, pa.types.is_integer] if field.name == "video_id" else _TEXTS
    if not any(is_kind(kind) for is_kind in kinds):
        raise ValueError(f"{manifest}: column {field.name} holds {field.type}; write texts")


def _batches(file: Path, kind: str) -> Iterator[Any]:
    """Reads a manifest, in the format of its extension, as Arrow record batches; text stays text (id 007 is not 7)."""
    match kind:
        case ".csv":
            types = pa.csv.ConvertOptions(column_types=_COLUMNS, strings_can_be_null=True, null_values=[""])
            yield from pa.csv.open_csv(file, convert_options=types)
        case ".jsonl":
            columns = _COLUMNS.set(1, pa.field("video_id", pa.int64())) if _has_numbers_as_ids(file) else _COLUMNS
            lines = pa.json.ParseOptions(explicit_schema=columns, unexpected_field_behavior="ignore")
            yield from pa.json.open_json(file, parse_options=lines)
        case _:
            yield from pa.parquet.ParquetFile(file).iter_batches(_ROWS)


def _has_numbers_as_ids(file: Path) -> bool:
    """Checks the first line of a JSONL manifest that has an id; Arrow refuses lines of another kind."""
    with file.open("rb") as lines:
        for line in lines:
            if b"video_id" in line:
                with suppress(ValueError, RecursionError):  # refused by Arrow, with the row
                    row = json.loads(line)
                    if isinstance(row, dict) and row.get("video_id") is not None:
                        return type(row["video_id"]) is int
    return False


def path_of(path: str, place: str) -> str:
    """Returns a local path, which may be given as file://.

    Args:
        path: as given.
        place: where, for errors.

    Raises:
        ValueError: it has another scheme, or is on another machine.
    """
    if "://" in path and not path.startswith("file://"):
        raise ValueError(f"{place}: {path}: only {objects.SUPPORTED} are supported; mount or copy them")
    if not path.startswith("file://"):
        return path
    host, slash, rest = path.removeprefix("file://").partition("/")
    if host not in ("", "localhost"):
        raise ValueError(f"{place}: {path}: is on another machine, {host}; mount it and give the path on this one")
    return unquote(slash + rest)
