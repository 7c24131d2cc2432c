import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pycocotools import mask as coco

from pipelines.review.images import Frames
from pipelines.review.preview import Pictures, picture
from pipelines.video.plan import VideoError
from tests.pipelines.review.archives import HEIGHT, WIDTH, box
from tests.pipelines.video.clips import H264, number, write_clip


def masks(seen: dict[int, list[int]], size: tuple[int, int] = (HEIGHT, WIDTH)) -> pa.Table:
    """Rows of the table for some tracks and their frames."""
    rows = []
    for track, frames in seen.items():
        for frame in frames:
            rle = coco.encode(np.asfortranarray(box(track, frame)))
            shape = {"x": frame, "y": 16 * track, "width": 24, "height": 12, "area": 288, "score": 0.5 + frame / 100}
            counts = {"size": list(size), "counts": rle["counts"].decode()}
            rows.append({"track_id": track, "frame": frame, "rle": counts} | shape)
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["frame"]))


def pictured(video: Path, film: Path, rows: pa.Table) -> Pictures:
    about: dict[str, Any] = {"uri": str(video), "height": HEIGHT, "width": WIDTH, "fps": 8.0}
    return picture(Frames(), about, rows, film)


def shown(film: Path) -> dict[int, float]:
    """The numbers that its frames show, and their times in eighths of a second."""
    with av.open(str(film)) as opened:
        return {number(frame.to_ndarray(format="rgb24")): 8 * float(frame.time) for frame in opened.decode(video=0)}


def test_a_film_has_the_labelled_frames_and_fills_gaps(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=40, fps=8, options=H264)
    found = pictured(tmp_path / "a.mp4", tmp_path / "film.mp4", masks({1: [9, 12, 15], 2: [15, 27]}))
    times = shown(tmp_path / "film.mp4")
    assert list(times) == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39]
    assert all(abs(time - frame) < 0.01 for frame, time in times.items())
    assert (set(found.crops), found.missing) == ({1, 2}, {})
    assert max(Image.open(io.BytesIO(found.crops[1])).size) == 256


def test_a_film_begins_at_the_beginning(tmp_path: Path) -> None:
    """A track in a single frame; others at a frame a second."""
    write_clip(tmp_path / "a.mp4", frames=20, fps=8, options=H264)
    pictured(tmp_path / "a.mp4", tmp_path / "film.mp4", masks({1: [5]}))
    assert list(shown(tmp_path / "film.mp4")) == [0, 5, 13]


def test_frames_that_are_gone_are_told(tmp_path: Path) -> None:
    """Another video lies in the place of the labelled one: it is shorter."""
    write_clip(tmp_path / "a.mp4", frames=10, fps=8, options=H264)
    found = pictured(tmp_path / "a.mp4", tmp_path / "film.mp4", masks({1: [2, 4], 2: [30]}))
    assert (set(found.crops), found.missing) == ({1}, {2: "frame 30 cannot be decoded"})


def test_a_video_of_another_size_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=10, fps=8, options=H264)
    with pytest.raises(VideoError, match="is 96 x 128 pixels, its masks are 48 x 64"):
        pictured(tmp_path / "a.mp4", tmp_path / "film.mp4", masks({1: [2]}, (48, 64)))
    with pytest.raises(VideoError, match="file not found"):
        pictured(tmp_path / "gone.mp4", tmp_path / "film.mp4", masks({1: [2]}))
