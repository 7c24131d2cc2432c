import pickle
import re
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.video_index import Sampling, VideoError, plan_video
from tests.pipelines.clips import CLIPS, Clip, cut_off, listed_clip, write_audio, write_images

ALL = Sampling()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return partial(listed_clip, tmp_path_factory.mktemp("clips"))


@pytest.mark.parametrize("name", CLIPS)
def test_what_a_video_is(clip: Clip, name: str) -> None:
    options, reader, _ = CLIPS[name]
    count, size, fps = options.get("frames", 48), options.get("size", (96, 128)), options.get("fps", 24)
    info = plan_video(clip(name), ALL, None).info
    turned = size if options.get("rotation", 0) % 180 == 0 else size[::-1]
    assert (info.frames, info.missing_frames, info.reader) == (count, 0, reader)
    assert (info.height, info.width, info.rotation) == (*turned, options.get("rotation", 0))
    if "times" not in options:
        assert info.fps == pytest.approx(fps, rel=1e-3)
        assert info.duration_s == pytest.approx(count / fps, abs=2e-3)


@pytest.mark.parametrize("name", CLIPS)
def test_videos_are_cut_at_key_frames(clip: Clip, name: str) -> None:
    segments = len(plan_video(clip(name), ALL, 1).segments)
    expected = CLIPS[name][2]
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


# Sampling


def test_sampling_by_hand() -> None:
    times = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 1.5, 1.6, 2.0])
    assert Sampling().select(times, 1e-6).tolist() == list(range(8))
    assert Sampling(stride=3).select(times, 1e-6).tolist() == [0, 3, 6]
    assert Sampling(fps=5).select(times, 1e-6).tolist() == [0, 2, 4, 5, 6, 7]
    assert Sampling(fps=1).select(times, 1e-6).tolist() == [0, 5, 7]
    assert Sampling(fps=1000).select(times, 1e-6).tolist() == list(range(8))


@pytest.mark.parametrize("fps", [1, 5, 7.5, 12, 24, 30, 60])
def test_sampling_is_the_first_frame_at_or_after_each_tick(fps: float) -> None:
    exact = [Fraction(i, 24) for i in range(100)]
    wanted = {
        next(i for i, time in enumerate(exact) if time >= k / Fraction(fps))
        for k in range(300)
        if k / Fraction(fps) <= exact[-1]
    }
    times = np.array(exact, dtype=float)
    assert Sampling(fps=fps).select(times, 1e-4).tolist() == sorted(wanted)
    rounded = times.round(3)  # Matroska
    if 24 % fps == 0 or fps > 24:
        assert Sampling(fps=fps).select(rounded, 1e-3).tolist() == sorted(wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0.0}, "fps: is 0.0"),
        ({"fps": -1.0}, "fps: is -1.0"),
        ({"fps": float("nan")}, "fps: is nan"),
        ({"fps": float("inf")}, "fps: is inf"),
        ({"stride": 0}, "stride: is 0"),
        ({"fps": 5.0, "stride": 2}, "fps and stride: are 5.0 and 2"),
    ],
)
def test_bad_sampling(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


# Folders of images


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_images(tmp_path: Path, suffix: str) -> None:
    plan = plan_video(str(write_images(tmp_path / "50%d frames", 12, suffix=suffix)), ALL, 5)
    assert (plan.info.frames, plan.info.fps, plan.info.duration_s, plan.info.codec) == (12, 1, 12, "images")
    assert (plan.info.height, plan.info.width, plan.info.reader) == (96, 128, "images")
    assert [len(segment.frames) for segment in plan.segments] == [5, 5, 2]


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "frames", 4)
    (folder / "frame_0.png").write_bytes(b"")
    with pytest.raises(VideoError, match=re.escape("frame_0.png: not an image")):
        plan_video(str(folder), ALL, None)


# What cannot be read


def test_reasons(tmp_path: Path, clip: Clip) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "junk.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 100)
    (tmp_path / "folder.mp4").mkdir()
    write_audio(tmp_path / "sound.mp4")
    cut_off(Path(clip("b_frames.mp4")), tmp_path / "no_index.mp4", 0.6)
    wiped = bytearray(Path(clip("b_frames.mp4")).read_bytes())
    at = wiped.index(b"mdat") + 4
    end = wiped.index(b"moov") - 4
    wiped[at:end] = bytes(end - at)
    (tmp_path / "wiped.mp4").write_bytes(wiped)
    for name, reason in {
        "none.mp4": "file not found",
        "empty.mp4": "empty file (0 bytes)",
        "junk.mp4": "not a video file",
        "text.mp4": "not a video file",
        "folder.mp4": "no frames (a folder without JPEG or PNG images)",
        "sound.mp4": "no video stream (audio only)",
        "no_index.mp4": "its index (moov) is missing: the file was cut off",
        "wiped.mp4": "no frames (nothing of its h264 stream can be decoded)",
    }.items():
        with pytest.raises(VideoError, match=f"^{re.escape(reason)}$"):
            plan_video(str(tmp_path / name), ALL, None)


def test_huge_frames_are_refused(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.video_index.MAX_PIXELS", 10_000)
    with pytest.raises(VideoError, match=r"^frame size too large \(128x96, limit 10000 pixels\)$"):
        plan_video(clip("b_frames.mp4"), ALL, None)
