import itertools
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.video.decode import FrameBatch, decode
from pipelines.video.index import plan_video
from pipelines.video.options import Sampling
from pipelines.video.plan import VideoError, VideoPlan
from tests.pipelines.video.clips import (
    CLIPS,
    H264,
    Clip,
    corner_is_red,
    cut_off,
    damage,
    number,
    picture,
    write_clip,
    write_image,
    write_images,
)
from tests.pipelines.video.odd import ODD, write_odd

ALL = Sampling()


def read(path: str, plan: VideoPlan, *, size: tuple[int, int] | None = None, batch_size: int = 16) -> FrameBatch:
    """All frames of a plan's segments, one after the other."""
    batches = [
        batch for part in plan.segments for batch in decode(path, plan.info, part, size=size, batch_size=batch_size)
    ]
    return FrameBatch(
        frames=np.concatenate([batch.frames for batch in batches]),
        frame=np.concatenate([batch.frame for batch in batches]),
        time_s=np.concatenate([batch.time_s for batch in batches]),
    )


def assert_same(one: FrameBatch, other: FrameBatch) -> None:
    assert np.array_equal(one.frame, other.frame)
    assert np.array_equal(one.time_s, other.time_s)
    assert np.array_equal(one.frames, other.frames)


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_comes_once_upright_and_in_time(clip: Clip, name: str) -> None:
    options = CLIPS[name][0]
    count, size, fps = options.get("frames", 48), options.get("size", (96, 128)), options.get("fps", 24)
    plan = plan_video(clip(name), ALL, None)
    turned = size if options.get("rotation", 0) % 180 == 0 else size[::-1]
    frames = read(clip(name), plan)
    assert frames.frames.shape == (count, *turned, 3)
    assert [number(frame) for frame in frames.frames] == list(range(count)) == frames.frame.tolist()
    assert all(corner_is_red(frame) for frame in frames.frames)
    times = [float(t) for t in options.get("times", [])] or np.arange(count) / fps
    assert np.abs(frames.time_s - times).max() < 0.0011  # Matroska's milliseconds


@pytest.mark.parametrize("name", ODD)
def test_odd_videos_are_read_as_players_show_them(tmp_path: Path, name: str) -> None:
    write_odd(tmp_path, name)
    path = str(tmp_path / name)
    plan = plan_video(path, ALL, None)
    batch = read(path, plan)
    frames = batch.frames[:, :, ::-1] if name == "mirrored.mp4" else batch.frames
    assert [number(frame) for frame in frames] == ODD[name][1]
    assert (plan.info.frames, plan.info.missing_frames, plan.info.cut_off) == (len(frames), 0, False)
    assert (np.diff(batch.time_s) > 0).all()


@pytest.mark.parametrize("name", CLIPS)
def test_segments_and_batches_are_invisible(clip: Clip, name: str) -> None:
    whole = read(clip(name), plan_video(clip(name), ALL, None), size=(48, 64))
    assert [number(frame) for frame in whole.frames] == whole.frame.tolist()
    for segment_frames, batch_size in itertools.product((1, 5, 32), (1, 4, 16)):
        plan = plan_video(clip(name), ALL, segment_frames)
        assert_same(read(clip(name), plan, size=(48, 64), batch_size=batch_size), whole)


@pytest.mark.parametrize("name", ["b_frames.mp4", "open_gop.ts", "vp9.webm", "b_frames.avi"])
@pytest.mark.parametrize("sampling", [Sampling(fps=5), Sampling(fps=1), Sampling(stride=7), Sampling(stride=30)])
def test_segments_are_invisible_when_sampling(clip: Clip, name: str, sampling: Sampling) -> None:
    everything = read(clip(name), plan_video(clip(name), ALL, None))
    plans = [plan_video(clip(name), sampling, length) for length in (None, 1, 3)]
    for plan in plans:
        frames = read(clip(name), plan, batch_size=4)
        assert_same(frames, read(clip(name), plans[0]))
        assert np.array_equal(frames.frames, everything.frames[frames.frame])
        assert np.array_equal(frames.time_s, everything.time_s[frames.frame])


def test_resizing_averages(tmp_path: Path) -> None:
    def stripes(number: int, height: int, width: int) -> np.ndarray:
        columns = np.where(np.arange(width) % 4 < 2, 20, 235).astype(np.uint8)
        return np.broadcast_to(columns[None, :, None], (height, width, 3))

    path = str(write_clip(tmp_path / "stripes.mp4", frames=2, options={"crf": "1"}, draw=stripes))
    plan = plan_video(path, ALL, None)
    assert np.ptp(read(path, plan).frames) > 200
    small = read(path, plan, size=(24, 32)).frames[:, :, 2:-2].astype(int)
    assert np.abs(small - 127).max() < 12


def test_a_segment_is_found_from_the_start_where_seeking_fails(clip: Clip) -> None:
    plan = plan_video(clip("open_gop.mp4"), ALL, 8)
    last = plan.segments[-1]
    whole = read(clip("open_gop.mp4"), plan)
    for seek in (0, 1 << 40):
        moved = replace(plan, segments=(*plan.segments[:-1], replace(last, seek=seek)))
        assert_same(read(clip("open_gop.mp4"), moved), whole)


# Folders of images


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_images(tmp_path: Path, suffix: str) -> None:
    folder = str(write_images(tmp_path / "50%d frames", 12, suffix=suffix))
    plan = plan_video(folder, ALL, 5)
    frames = read(folder, plan, batch_size=4)
    assert [number(frame) for frame in frames.frames] == frames.frame.tolist() == list(range(12))
    assert frames.time_s.tolist() == list(range(12))
    if suffix == ".png":
        assert np.array_equal(frames.frames[3], picture(3, 96, 128))
    assert_same(read(folder, plan_video(folder, ALL, None)), frames)
    faster = read(folder, plan_video(folder, Sampling(fps=4), None), size=(48, 64))
    assert faster.frames.shape == (12, 48, 64, 3)
    assert faster.time_s.tolist() == [i / 4 for i in range(12)]
    assert read(folder, plan_video(folder, Sampling(stride=5), 1)).frame.tolist() == [0, 5, 10]


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "frames", 4)
    (folder / "frame_2.png").write_bytes(b"not a picture")
    plan = plan_video(str(folder), ALL, None)
    with pytest.raises(VideoError, match=re.escape("frame_2.png: not an image that can be read")):
        read(str(folder), plan)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_an_image_that_was_cut_off_is_named(tmp_path: Path, share: float) -> None:
    """FFmpeg fills the rest with a colour, and calls it sound."""
    folder = write_images(tmp_path / "frames", 3, suffix=".jpg")
    image = folder / "frame_2.jpg"
    image.write_bytes(image.read_bytes()[: int(share * image.stat().st_size)])
    with pytest.raises(VideoError, match=re.escape("frame_2.jpg: not an image that can be read")):
        read(str(folder), plan_video(str(folder), ALL, None))


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    """Stretched to the first one's, it would have masks that do not fit it."""
    folder = write_images(tmp_path / "frames", 2)
    write_image(folder / "frame_2.png", picture(2, 60, 80))
    with pytest.raises(VideoError, match="frame_2.png: is 80x60, the first image 128x96"):
        read(str(folder), plan_video(str(folder), ALL, None))


# What cannot be read to the end


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=4)
    plan = plan_video(str(path), ALL, None)
    path.unlink()
    with pytest.raises(VideoError, match="file not found"):
        read(str(path), plan)


@pytest.mark.parametrize("name", ["front.mp4", "cut.mkv", "cut.webm", "cut.ts"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_what_is_left_of_a_file_that_was_cut_off(tmp_path: Path, name: str, share: float) -> None:
    vp9 = {"codec": "libvpx-vp9", "options": {"g": "12"}}
    options = vp9 if name.endswith("webm") else {"options": H264}
    movflags = {"movflags": "faststart"} if name.endswith("mp4") else None
    write_clip(tmp_path / f"whole_{name}", frames=96, container_options=movflags, **options)
    path = str(cut_off(tmp_path / f"whole_{name}", tmp_path / name, share))
    plan = plan_video(path, ALL, None)
    assert 0 < plan.info.frames < 96
    if name != "cut.ts" and share < 0.9:  # a transport stream states no length
        assert plan.info.frames + plan.info.missing_frames == pytest.approx(96, abs=10)  # Matroska: estimated
    frames = read(path, plan)
    assert plan.info.frames - 4 <= len(frames.frame) <= plan.info.frames
    assert [number(frame) for frame in frames.frames] == np.round(frames.time_s * 24).astype(int).tolist()
    assert_same(read(path, plan_video(path, ALL, 8), batch_size=4), frames)


@pytest.mark.parametrize("name", ["a.mov", "a.avi"])
@pytest.mark.parametrize("share", [0.53, 0.71, 0.9])
def test_half_a_frame_is_left_out(tmp_path: Path, name: str, share: float) -> None:
    """The decoder of MJPEG would fill its other half with what another frame left in memory."""
    options: dict[str, Any] = {"container_options": {"movflags": "faststart"}} if name == "a.mov" else {}
    whole = write_clip(tmp_path / name, codec="mjpeg", pix_fmt="yuvj420p", **options)
    expected = read(str(whole), plan_video(str(whole), ALL, None))
    half = str(cut_off(whole, tmp_path / f"half_{name}", share))
    frames = read(half, plan_video(half, ALL, None))
    assert 10 < len(frames.frame) < 48 * share + 2
    assert np.array_equal(frames.frames, expected.frames[: len(frames.frame)])
    assert_same(read(half, plan_video(half, ALL, 4)), frames)


@pytest.mark.parametrize("start", [0.3, 0.4, 0.5, 0.8])
def test_damage_is_passed_over(tmp_path: Path, clip: Clip, start: float) -> None:
    path = str(damage(Path(clip("b_frames.mp4")), tmp_path / "damaged.mp4", start, length=60))
    for segment_frames in (None, 8):
        frames = read(path, plan_video(path, ALL, segment_frames))
        assert 40 <= len(frames.frame) <= 48
        assert np.diff(frames.frame).min() > 0
        wrong = [i for i, frame in zip(frames.frame.tolist(), frames.frames, strict=True) if number(frame) != i]
        assert len(wrong) <= 8  # one group of pictures
    assert_same(read(path, plan_video(path, ALL, 8)), read(path, plan_video(path, ALL, None)))


def test_nothing_is_printed(tmp_path: Path, clip: Clip) -> None:
    damage(Path(clip("open_gop.mp4")), tmp_path / "damaged.mp4", 0.4)
    damage(Path(clip("b_frames.mp4")), tmp_path / "damaged_too.mp4", 0.4)
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 1000)
    script = """if True:
        import sys
        from pipelines.video.decode import decode
        from pipelines.video.index import plan_video
        from pipelines.video.options import Sampling
        from pipelines.video.plan import VideoError
        for path in sys.argv[1:]:
            try:
                plan = plan_video(path, Sampling(), 8)
                batches = [decode(path, plan.info, part, size=None, batch_size=4) for part in plan.segments]
                print(sum(len(batch.frame) for part in batches for batch in part))
            except VideoError as error:
                print(error)
    """
    paths = [str(tmp_path / f"{name}.mp4") for name in ("damaged", "damaged_too", "junk")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, env=environment, check=True, timeout=120
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 3
