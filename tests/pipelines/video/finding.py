"""Makes files and finds videos among them."""

import os
from pathlib import Path

from pipelines.video.sources import Video, find_videos


def touch(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def found(source: object, relative_to: Path) -> list[str]:
    return [os.path.relpath(video.uri, relative_to) for video in find_videos(str(source))]


def only(source: object) -> Video:
    (video,) = find_videos(str(source))
    return video
