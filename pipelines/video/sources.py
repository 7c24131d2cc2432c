"""Sources: from what a user points at to one `Video` after the other."""

import glob
import hashlib
import itertools
import os
import posixpath
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from pipelines.storage import s3
from pipelines.video.names import VIDEO_SUFFIXES, is_image, is_video, list_images, suffix
from pipelines.video.s3_sources import find_in_prefix, frame_folder, list_frames

MANIFEST_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet"})

_LOOK_UPS = 32  # at a time
_COLUMNS = pa.schema([("uri", pa.string()), ("video_id", pa.string())])
_VIDEO_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class Video:
    """One video of a source: a file, or a folder of frames.

    Attributes:
        video_id: Its name in all tables, unique within a source. Made from the whole URI and the content's size and
            time, or on S3 its ETag, so that equal base names never collide and a file that changed is another video.
        uri: Absolute path, or URI of S3, which ends at a slash if it is a folder of frames.
        version: ETag that the content on S3 must have, if it is known; empty for a local path.
    """

    video_id: str
    uri: str
    version: str = ""


def find_videos(source: str) -> Iterator[Video]:
    """Finds the videos of a source, one after the other and always in the same order.

    A file is a video by its extension alone: junk named .mp4 is one, and fails later, where it can be seen. Hidden
    files and files of other extensions are left out.

    Args:
        source: A folder, searched recursively; a glob; one file; or a manifest (.csv, .jsonl, .parquet) with a column
            `uri`, relative to the manifest, and perhaps `video_id`; each local or s3://. A folder with images and no
            video files directly in it is one video. What a manifest names need not exist; it fails later as well.

    Yields:
        Videos with different ids and different URIs.

    Raises:
        ValueError: if there is nothing to read, no video, or one twice, or S3 refuses; names the place, the value and
            the remedy.
    """
    ids, uris = set[int](), set[int]()  # hashes, since there may be millions
    for place, video in _candidates(source):
        if hash(video.uri) in uris:
            raise ValueError(f"{place}: uri {video.uri} is given twice; remove one of the two")
        if hash(video.video_id) in ids:
            raise ValueError(f"{place}: video_id {video.video_id!r} is given twice; every video needs its own")
        ids.add(hash(video.video_id))
        uris.add(hash(video.uri))
        yield video
    if not ids:
        raise ValueError(f"input: no videos in {source}; known extensions are {' '.join(sorted(VIDEO_SUFFIXES))}")


def _candidates(source: str) -> Iterator[tuple[str, Video]]:
    """Yields every video with the place that names it, for errors."""
    if s3.is_s3(source):
        try:
            yield from _on_s3(source)
        except OSError as error:
            raise ValueError(f"input: {error.filename}: {error.strerror}") from error
        return
    source = _local(source, "input")
    if os.path.isdir(source):
        yield from (("input", video) for video in _in_folder(source))
    elif os.path.isfile(source) and suffix(source) in MANIFEST_SUFFIXES:
        yield from _in_manifest(source)
    elif os.path.isfile(source):
        _check_suffix(source)
        yield "input", _video(source)
    elif glob.has_magic(source):
        for match in sorted(glob.iglob(source, recursive=True)):
            if is_video(os.path.basename(match)) or _is_frame_folder(match):
                yield "input", _video(match)
    else:
        raise ValueError(f"input: {source or 'the path'} does not exist; name a folder, file, glob or manifest")


def _on_s3(source: str) -> Iterator[tuple[str, Video]]:
    found = _head(source)
    if found is None:
        yield from (("input", _s3_video(each)) for each in find_in_prefix(source))
    elif suffix(source) in MANIFEST_SUFFIXES:
        yield from _in_manifest(source)
    else:
        _check_suffix(source)
        yield "input", _s3_video(found)


def _check_suffix(source: str) -> None:
    if suffix(source) not in VIDEO_SUFFIXES:
        raise ValueError(f"input: {source} is neither a video nor a manifest by its extension; rename it")


def _in_folder(folder: str, above: tuple[str, ...] = ()) -> Iterator[Video]:
    """Yields the videos below a folder; holds one listing per level. Links are followed, but not in circles."""
    real = os.path.realpath(folder)
    if real in above:
        return
    if _is_frame_folder(folder):
        yield _video(folder)
    for name in sorted(name for name in os.listdir(folder) if not name.startswith(".")):
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            yield from _in_folder(path, (*above, real))
        elif is_video(name):
            yield _video(path)


def _in_manifest(manifest: str) -> Iterator[tuple[str, Video]]:
    """Yields the videos of a manifest, each with its row, counted from 1 without the header."""
    rows = _checked_rows(manifest)
    with ThreadPoolExecutor(_LOOK_UPS) as pool:  # those on S3 without an id of their own are asked for
        while some := list(itertools.islice(rows, 8 * _LOOK_UPS)):
            yield from pool.map(_manifest_video, some)


def _checked_rows(manifest: str) -> Iterator[tuple[str, str, str | None]]:
    """Yields place, whole path or URI, and id."""
    for number, row in enumerate(_rows(manifest), start=1):
        place = f"{manifest} row {number}"
        uri, video_id = row["uri"], row.get("video_id")
        if not uri:
            raise ValueError(f"{place}: uri is {uri!r}; give the path of a video")
        if video_id is not None and not _VIDEO_ID.fullmatch(str(video_id)):
            raise ValueError(
                f"{place}: video_id is {video_id!r}; use 1 to 128 of A-Z a-z 0-9 . _ - and no dot at the start"
            )
        yield place, _whole(str(uri), manifest, place), None if video_id is None else str(video_id)


def _whole(uri: str, manifest: str, place: str) -> str:
    """A URI of a manifest, relative to it."""
    if not s3.is_s3(uri):
        uri = _local(uri, place)
        if os.path.isabs(uri) or not s3.is_s3(manifest):
            return os.path.join(os.path.dirname(manifest), uri)
        bucket, key = s3.split(manifest)
        path = posixpath.normpath(posixpath.join(posixpath.dirname(key), uri))
        uri = f"s3://{bucket}/{path}{'/' if uri.endswith('/') else ''}"
    if not s3.split(uri)[1] or ".." in uri.split("/")[3:4]:
        raise ValueError(f"{place}: uri {uri} names no object of a bucket; give s3://bucket/key")
    return uri


def _manifest_video(row: tuple[str, str, str | None]) -> tuple[str, Video]:
    place, uri, video_id = row
    if not s3.is_s3(uri):
        return place, _video(uri, video_id)
    if video_id is not None:
        return place, Video(video_id=video_id, uri=uri)
    images = list_frames(uri) if uri.endswith("/") else []
    found = frame_folder(uri, images) if images else _head(uri)
    return place, _s3_video(found or s3.S3Object(uri=uri, size=0, etag=""))


def _rows(manifest: str) -> Iterator[dict[str, Any]]:
    """Yields `uri` and, if there is one, `video_id` of a manifest's rows; reads one batch at a time."""
    with s3.local_copy(manifest) if s3.is_s3(manifest) else nullcontext(Path(manifest)) as file:
        try:
            for batch in _batches(file, suffix(manifest)):
                names = batch.schema.names
                if "uri" not in names:
                    raise ValueError(
                        f"{manifest}: has no column uri, only {', '.join(names)}; name the paths' column uri"
                    )
                yield from batch.select([name for name in _COLUMNS.names if name in names]).to_pylist()
        except pa.ArrowException as error:
            if file.stat().st_size:  # an empty file is no more than a source without videos
                raise ValueError(
                    f"{manifest}: cannot be read ({error}); check that it is what its name says"
                ) from error


def _batches(file: Path, kind: str) -> Iterator[Any]:
    """Reads a manifest by its extension, as Arrow record batches; text columns stay text (an id 007 is not 7)."""
    match kind:
        case ".csv":
            types = pa.csv.ConvertOptions(column_types=_COLUMNS, strings_can_be_null=True)
            yield from pa.csv.open_csv(file, convert_options=types)
        case ".jsonl":
            lines = pa.json.ParseOptions(explicit_schema=_COLUMNS, unexpected_field_behavior="ignore")
            yield from pa.json.open_json(file, parse_options=lines)
        case _:
            yield from pa.parquet.ParquetFile(file).iter_batches()


def _video(path: str, video_id: str | None = None) -> Video:
    """Names a file, a frame folder, or something that isn't there, which is identified by its path alone."""
    uri = os.path.abspath(path)
    if video_id is None:
        digest = hashlib.sha256(os.fsencode(uri))
        files = [os.path.join(uri, name) for name in list_images(uri)] if os.path.isdir(uri) else [uri]
        for file in filter(os.path.exists, files):
            stat = os.stat(file)
            digest.update(os.fsencode(f"\0{os.path.basename(file)}\0{stat.st_size}\0{stat.st_mtime_ns}"))
        video_id = _made_id(uri, digest)
    return Video(video_id=video_id, uri=uri)


def _s3_video(found: s3.S3Object) -> Video:
    """Names an object or a frame folder of S3, or something that isn't there, which has no ETag."""
    digest = hashlib.sha256(f"{found.uri}\0{found.size}\0{found.etag}".encode())
    return Video(video_id=_made_id(found.uri.rstrip("/"), digest), uri=found.uri, version=found.etag)


def _made_id(uri: str, digest: "hashlib._Hash") -> str:
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", os.path.splitext(os.path.basename(uri))[0]).strip("-")[:48]
    return f"{slug or 'video'}-{digest.hexdigest()[:12]}"


def _head(uri: str) -> s3.S3Object | None:
    """The object of this very URI, if there is one."""
    if uri.endswith("/") or not s3.split(uri)[1]:
        return None
    try:
        return s3.head(uri)
    except FileNotFoundError:
        return None


def _local(path: str, place: str) -> str:
    if "://" in path and not path.startswith("file://"):
        raise ValueError(f"{place}: {path}: only local files and s3:// are supported; mount or copy them")
    return path.removeprefix("file://")


def _is_frame_folder(path: str) -> bool:
    """Whether the images in a folder are a video's frames, not for example the thumbnails of videos beside them."""
    if not os.path.isdir(path):
        return False
    names = os.listdir(path)
    return any(map(is_image, names)) and not any(map(is_video, names))
