"""Recognises videos and images by name, and orders frames."""

import os
import re
from urllib.parse import unquote, urlsplit

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3g2", ".3gp", ".apng", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265", ".hevc",
    ".ivf", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf",
    ".nut", ".obu", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
})
# fmt: on
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def suffix(path: str) -> str:
    """Returns the extension with its dot, in lower case."""
    return os.path.splitext(path)[1].lower()


def local_path(uri: str) -> str:
    """Returns the path of a local video, which tables may state as file://."""
    return unquote(urlsplit(uri).path) if uri.startswith("file://") else uri


def is_video(name: str) -> bool:
    """Checks that a name is that of a video; hidden files are not."""
    return not name.startswith(".") and suffix(name) in VIDEO_SUFFIXES


def is_image(name: str) -> bool:
    """Checks that a name is that of an image; hidden files are not."""
    return not name.startswith(".") and suffix(name) in _IMAGE_SUFFIXES


def natural_key(name: str) -> tuple[list[int | str], str]:
    """Returns a sort key for natural order: frame_9 before frame_10."""
    # Text and numbers alternate, starting with text, so that any two keys can be compared.
    return [int(part) if at % 2 else part for at, part in enumerate(re.split(r"([0-9]+)", name))], name


def list_images(folder: str) -> list[str]:
    """Lists the names of the images directly in a folder, in natural order: frame_9 before frame_10."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if is_image(entry.name) and entry.is_file()]
    return sorted(names, key=natural_key)
