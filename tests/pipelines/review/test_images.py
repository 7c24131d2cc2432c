import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines.review.images import CROP, Frames, Recent, best_mask, crop, jpeg
from pipelines.video.plan import VideoError
from tests.pipelines.review.archives import HEIGHT, WIDTH, box
from tests.pipelines.video.clips import number


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("name", ["numbered.mp4", "old.avi"])
def test_a_frame_is_the_one_that_is_asked_for(videos: Path, name: str) -> None:
    frames = Frames()
    for frame in (0, 13, 7):
        assert number(frames.read(str(videos / name), frame)) == frame
    assert number(frames.read((videos / name).as_uri(), 5)) == 5


def test_what_cannot_be_read_is_told(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="file not found"):
        Frames().read(str(videos / "gone.mp4"), 0)
    with pytest.raises(VideoError, match="frame 48 cannot be decoded"):
        Frames().read(str(videos / "numbered.mp4"), 48)
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(VideoError):
        Frames().read(str(tmp_path / "broken.mp4"), 0)


def test_a_frame_that_cannot_be_read_is_tried_again_after_a_minute(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, file, now = Frames(), tmp_path / "late.mp4", 100.0
    monkeypatch.setattr("pipelines.review.images.time.monotonic", lambda: now)
    with pytest.raises(VideoError, match="file not found"):
        frames.read(str(file), 3)
    file.write_bytes((videos / "numbered.mp4").read_bytes())
    now += 59
    with pytest.raises(VideoError, match="file not found"):
        frames.read(str(file), 3)
    assert number(frames.read(str(file), 4)) == 4
    now += 2
    assert number(frames.read(str(file), 3)) == 3


def mask_of(track: int, frame: int) -> dict[str, object]:
    from pycocotools import mask as coco

    rle = coco.encode(np.asfortranarray(box(track, frame)))
    shape = {"x": frame, "y": 16 * track, "width": 24, "height": 12}
    return shape | {"rle": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}}


def test_a_crop_shows_the_object_and_dims_the_rest() -> None:
    frame = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    image = opened(crop(frame, mask_of(2, 40)))
    assert max(image.shape) == CROP
    assert abs(int(image[image.shape[0] // 2, image.shape[1] // 2].mean()) - 200) < 5
    assert abs(int(image[2, 2].mean()) - 110) < 5
    assert opened(crop(frame, mask_of(0, 0))).size  # at the edge of the frame
    with pytest.raises(VideoError, match="is 50 x 60 pixels, its masks are 96 x 128"):
        crop(np.zeros((50, 60, 3), np.uint8), mask_of(0, 0))


def test_small_frames_keep_their_size() -> None:
    assert opened(jpeg(np.zeros((40, 60, 3), np.uint8), 960)).shape == (40, 60, 3)
    assert opened(jpeg(np.zeros((400, 1920, 3), np.uint8), 960)).shape == (200, 960, 3)


def test_the_best_mask_is_large_and_certain() -> None:
    masks = pa.table({"score": [0.9, 0.5, 0.9], "area": [10, 30, 10], "frame": [0, 1, 2]})
    assert best_mask(masks)["frame"] == 1
    assert best_mask(masks.slice(0, 1))["frame"] == 0
    nothing = pa.table({"score": pa.array([None], pa.float32()), "area": pa.array([4], pa.int32()), "frame": [3]})
    assert best_mask(nothing)["frame"] == 3


def test_recent_values_are_made_once_and_forgotten_in_time() -> None:
    made = []
    recent: Recent[str, bytes] = Recent(10, len)

    def get(key: str) -> bytes:
        return recent.get(key, lambda: made.append(key) or b"1234")

    assert [get(key) for key in "aabaca"] == [b"1234"] * 6
    assert made == ["a", "b", "c"]
    get("b")
    assert made == ["a", "b", "c", "b"]
    large: Recent[str, bytes] = Recent(2, len)
    assert large.get("a", lambda: b"large") == b"large"
    large.forget(lambda value: value == b"large")
    assert large.get("a", lambda: b"x") == b"x"
