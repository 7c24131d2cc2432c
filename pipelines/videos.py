"""Sources: from what a user points at to one `Video` after the other."""

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".ivf", ".m2ts",
    ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".obu",
    ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
})
# fmt: on
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
MANIFEST_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet"})

_COLUMNS = pa.schema([("uri", pa.string()), ("video_id", pa.string())])
_VIDEO_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class Video:
    """One video of a source: a file, or a folder of frames.

    Attributes:
        video_id: Its name in all tables, unique within a source. Made from the whole URI and the content's size and
            time, so that equal base names never collide and a file that changed is another video.
        uri: Absolute path.
    """

    video_id: str
    uri: str


def find_videos(source: str) -> Iterator[Video]:
    """Finds the videos of a source, one after the other and always in the same order.

    A file is a video by its extension alone: junk named .mp4 is one, and fails later, where it can be seen. Hidden
    files and files of other extensions are left out.

    Args:
        source: A folder, searched recursively; a glob; one file; or a manifest (.csv, .jsonl, .parquet) with a column
            `uri`, relative to the manifest, and perhaps `video_id`. A folder with images and no video files directly
            in it is one video. What a manifest names need not exist; it fails later as well.

    Yields:
        Videos with different ids and different URIs.

    Raises:
        ValueError: if there is nothing to read, no video, or one twice; names the place, the value and the remedy.
    """
    ids, uris = set[str](), set[str]()
    for place, video in _candidates(source):
        if video.uri in uris:
            raise ValueError(f"{place}: uri {video.uri} is given twice; remove one of the two")
        if video.video_id in ids:
            raise ValueError(f"{place}: video_id {video.video_id!r} is given twice; every video needs its own")
        ids.add(video.video_id)
        uris.add(video.uri)
        yield video
    if not ids:
        raise ValueError(f"input: no videos in {source}; known extensions are {' '.join(sorted(VIDEO_SUFFIXES))}")


def list_images(folder: str) -> list[str]:
    """Names of the images directly in a folder, in natural order: frame_9 before frame_10."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_visible(entry.name, IMAGE_SUFFIXES) and entry.is_file()]
    return sorted(names, key=lambda name: ([int(part) if part.isdigit() else part for part in _digits(name)], name))


def _candidates(source: str) -> Iterator[tuple[str, Video]]:
    """Yields every video with the place that names it, for errors."""
    source = _local(source, "input")
    suffix = os.path.splitext(source)[1].lower()
    if os.path.isdir(source):
        yield from (("input", video) for video in _in_folder(source))
    elif os.path.isfile(source) and suffix in MANIFEST_SUFFIXES:
        yield from _in_manifest(Path(source))
    elif os.path.isfile(source):
        if suffix not in VIDEO_SUFFIXES:
            raise ValueError(f"input: {source} is neither a video nor a manifest by its extension; rename it")
        yield "input", _video(source)
    elif glob.has_magic(source):
        for match in sorted(glob.iglob(source, recursive=True)):
            if _is_visible(os.path.basename(match), VIDEO_SUFFIXES) or _is_frame_folder(match):
                yield "input", _video(match)
    else:
        raise ValueError(f"input: {source or 'the path'} does not exist; name a folder, file, glob or manifest")


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
        elif _is_visible(name, VIDEO_SUFFIXES):
            yield _video(path)


def _in_manifest(manifest: Path) -> Iterator[tuple[str, Video]]:
    """Yields the videos of a manifest, each with its row, counted from 1 without the header."""
    for number, row in enumerate(_rows(manifest), start=1):
        place = f"{manifest} row {number}"
        uri, video_id = row["uri"], row.get("video_id")
        if not uri:
            raise ValueError(f"{place}: uri is {uri!r}; give the path of a video")
        if video_id is not None and not _VIDEO_ID.fullmatch(str(video_id)):
            raise ValueError(
                f"{place}: video_id is {video_id!r}; use 1 to 128 of A-Z a-z 0-9 . _ - and no dot at the start"
            )
        path = os.path.join(manifest.parent, _local(str(uri), place))
        yield place, _video(path, None if video_id is None else str(video_id))


def _rows(manifest: Path) -> Iterator[dict[str, Any]]:
    """Yields `uri` and, if there is one, `video_id` of a manifest's rows; reads one batch at a time."""
    try:
        for batch in _batches(manifest):
            names = batch.schema.names
            if "uri" not in names:
                raise ValueError(f"{manifest}: has no column uri, only {', '.join(names)}; name the paths' column uri")
            yield from batch.select([name for name in _COLUMNS.names if name in names]).to_pylist()
    except pa.ArrowException as error:
        if manifest.stat().st_size:  # an empty file is no more than a source without videos
            raise ValueError(f"{manifest}: cannot be read ({error}); check that it is what its name says") from error


def _batches(manifest: Path) -> Iterator[Any]:
    """Reads a manifest by its extension, as Arrow record batches; text columns stay text (an id 007 is not 7)."""
    match manifest.suffix.lower():
        case ".csv":
            types = pa.csv.ConvertOptions(column_types=_COLUMNS, strings_can_be_null=True)
            yield from pa.csv.open_csv(manifest, convert_options=types)
        case ".jsonl":
            lines = pa.json.ParseOptions(explicit_schema=_COLUMNS, unexpected_field_behavior="ignore")
            yield from pa.json.open_json(manifest, parse_options=lines)
        case _:
            yield from pa.parquet.ParquetFile(manifest).iter_batches()


def _video(path: str, video_id: str | None = None) -> Video:
    """Names a file, a frame folder, or something that isn't there, which is identified by its path alone."""
    uri = os.path.abspath(path)
    if video_id is None:
        digest = hashlib.sha256(os.fsencode(uri))
        files = [os.path.join(uri, name) for name in list_images(uri)] if os.path.isdir(uri) else [uri]
        for file in filter(os.path.exists, files):
            stat = os.stat(file)
            digest.update(os.fsencode(f"\0{os.path.basename(file)}\0{stat.st_size}\0{stat.st_mtime_ns}"))
        slug = re.sub(r"[^A-Za-z0-9_]+", "-", os.path.splitext(os.path.basename(uri))[0]).strip("-")[:48]
        video_id = f"{slug or 'video'}-{digest.hexdigest()[:12]}"
    return Video(video_id=video_id, uri=uri)


def _local(path: str, place: str) -> str:
    if "://" in path and not path.startswith("file://"):
        raise ValueError(f"{place}: {path}: only local files are supported so far; mount or copy them")
    return path.removeprefix("file://")


def _is_visible(name: str, suffixes: frozenset[str]) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes


def _is_frame_folder(path: str) -> bool:
    """Whether the images in a folder are a video's frames, not for example the thumbnails of videos beside them."""
    if not os.path.isdir(path):
        return False
    names = os.listdir(path)
    return any(_is_visible(name, IMAGE_SUFFIXES) for name in names) and not any(
        _is_visible(name, VIDEO_SUFFIXES) for name in names
    )


def _digits(name: str) -> list[str]:
    """Splits a name at its numbers; text and numbers alternate, starting with text."""
    return re.split(r"([0-9]+)", name)
