from pathlib import Path

import numpy as np
import pytest

from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.video.decode import decode
from pipelines.video.frames import pick_frames, read_frames
from pipelines.video.index import plan_video
from pipelines.video.options import Sampling
from pipelines.video.plan import VideoError


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    split = write_split(tmp_path_factory.mktemp("shapes"), "valid", 1, 0, SceneConfig(frames=11, height=120, width=180))
    return str(next((split.path / "videos").iterdir()))


def halves(height: int, width: int) -> tuple[int, int]:
    return height // 2, width // 2


def test_frames_are_those_that_labelling_decodes(video: str) -> None:
    plan = plan_video(video, Sampling(stride=2), 4)
    expected = [b for s in plan.segments for b in decode(video, plan.info, s, size=(60, 90), batch_size=3)]
    found = list(read_frames(video, halves, sampling=Sampling(stride=2), batch_size=4))
    assert [len(frames) for frames in found] == [4, 2]
    assert np.array_equal(np.concatenate([f.pixels for f in found]), np.concatenate([b.frames for b in expected]))
    assert np.concatenate([f.index for f in found if f.index is not None]).tolist() == [0, 2, 4, 6, 8, 10]
    assert {frames.size for frames in found} == {(120, 180)}


def test_frames_have_the_size_of_the_video(video: str) -> None:
    assert [frames.pixels.shape for frames in read_frames(video)] == [(8, 120, 180, 3), (3, 120, 180, 3)]


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VideoError):
        next(read_frames(str(tmp_path / "none.mp4")))


def test_some_frames_are_picked(video: str) -> None:
    (everything,) = read_frames(video, batch_size=11)
    picked = dict(pick_frames(video, {7, 2, 99}))
    assert list(picked) == [2, 7]
    assert all(np.array_equal(picked[index], everything.pixels[index]) for index in picked)
    assert dict(pick_frames(video, [])) == {}
