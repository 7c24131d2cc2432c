import pickle
import re
from pathlib import Path

import pytest

from pipelines.video.index import plan_video
from pipelines.video.plan import Sampling, VideoError
from tests.pipelines.video.clips import CLIPS, Clip, write_images

ALL = Sampling()


@pytest.mark.parametrize("name", CLIPS)
def test_what_a_video_is(clip: Clip, name: str) -> None:
    options, _ = CLIPS[name]
    count, size, fps = options.get("frames", 48), options.get("size", (96, 128)), options.get("fps", 24)
    info = plan_video(clip(name), ALL, None).info
    turned = size if options.get("rotation", 0) % 180 == 0 else size[::-1]
    assert (info.frames, info.missing_frames, info.cut_off) == (count, 0, False)
    assert (info.height, info.width) == turned
    if "times" not in options:
        assert info.fps == pytest.approx(fps, rel=1e-3)
        assert info.duration_s == pytest.approx(count / fps, abs=2e-3)


@pytest.mark.parametrize("name", CLIPS)
def test_videos_are_cut_at_key_frames(clip: Clip, name: str) -> None:
    segments = len(plan_video(clip(name), ALL, 1).segments)
    expected = CLIPS[name][1]
    assert segments == expected if expected else segments > 3


def test_segments_are_about_as_long_as_asked(clip: Clip) -> None:
    lengths = [len(segment.frames) for segment in plan_video(clip("b_frames.mp4"), ALL, 20).segments]
    assert lengths == [16, 16, 16]
    plan = plan_video(clip("b_frames.mp4"), Sampling(stride=3), 4)
    assert sum(len(segment.frames) for segment in plan.segments) == 16
    assert all(len(segment.frames) <= 4 for segment in plan.segments)
    assert [segment.index for segment in plan.segments] == list(range(len(plan.segments)))
    assert len(pickle.dumps(plan)) < 10_000


def test_bad_segment_length(clip: Clip) -> None:
    with pytest.raises(ValueError, match="segment_frames: is 0"):
        plan_video(clip("one.mp4"), ALL, 0)


# Folders of images


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_images(tmp_path: Path, suffix: str) -> None:
    plan = plan_video(str(write_images(tmp_path / "50%d frames", 12, suffix=suffix)), ALL, 5)
    assert (plan.info.frames, plan.info.fps, plan.info.duration_s, plan.info.codec) == (12, 1, 12, "images")
    assert (plan.info.height, plan.info.width) == (96, 128)
    assert [len(segment.frames) for segment in plan.segments] == [5, 5, 2]


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "frames", 4)
    (folder / "frame_0.png").write_bytes(b"")
    with pytest.raises(VideoError, match=re.escape("frame_0.png: not an image")):
        plan_video(str(folder), ALL, None)
