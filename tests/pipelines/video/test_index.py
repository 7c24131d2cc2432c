import pickle
import re
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from pipelines.video.decode import decode
from pipelines.video.index import plan_video
from pipelines.video.options import Sampling
from pipelines.video.plan import VideoError
from tests.pipelines.video.clips import CLIPS, H264, Clip, cut_off, mux, number, picture, write_clip, write_images

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


# Files whose packets do not say plainly what is shown


def numbers(path: str) -> list[int]:
    plan = plan_video(path, ALL, None)
    batches = [b for part in plan.segments for b in decode(path, plan.info, part, size=None, batch_size=16)]
    return [number(frame) for batch in batches for frame in batch.frames]


def test_size_and_pixels_are_of_the_same_stream(tmp_path: Path) -> None:
    small = write_clip(tmp_path / "small.mp4", frames=6, size=(64, 96), draw=lambda i, h, w: picture(i + 10, h, w))
    large = write_clip(tmp_path / "large.mp4", frames=6)
    path = mux(tmp_path / "both.mp4", small, large)
    info = plan_video(path, ALL, None).info
    first = {(64, 96): 10, (96, 128): 0}[info.height, info.width]
    assert numbers(path) == list(range(first, first + 6))


def test_frames_with_the_same_time_are_all_there(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mkv", frames=6, options={"bf": "0"})
    path = mux(tmp_path / "equal.mkv", clip, times=[0, 40, 40, 80, 120, 160])
    plan = plan_video(path, ALL, 2)
    assert (plan.info.frames, plan.info.timestamps, len(plan.segments)) == (6, False, 1)
    assert plan.segments[0].times_s.tolist() == pytest.approx([0, 0.04, 0.04, 0.08, 0.12, 0.16])
    assert numbers(path) == list(range(6))


def test_slides_last_as_long_as_they_are_shown(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.webm", frames=3, codec="libvpx-vp9", fps=30)
    path = mux(tmp_path / "slides.webm", clip, times=[0, 45_000, 90_000])
    info = plan_video(path, ALL, None).info
    assert (info.frames, info.missing_frames, info.cut_off) == (3, 0, False)
    assert 90 < info.duration_s <= 91  # the last one is shown for a moment, not for as long as those before it


def test_a_duration_tag_of_any_shape_is_no_reason(tmp_path: Path) -> None:
    for name, tag in (("number.mkv", "2000"), ("stale.mkv", "00:10:00.000000000"), ("text.mkv", "long")):
        path = tmp_path / name
        write_clip(path, frames=6)
        data = path.read_bytes()
        at = data.index(b"DURATION") + 11  # the tag's name, then its content's id and size
        path.write_bytes(data[:at] + tag.encode().ljust(18, b"\0")[:18] + data[at + 18 :])
        info = plan_video(str(path), ALL, None).info
        assert (info.frames, info.missing_frames, info.cut_off) == (6, 0, False), name


def test_the_end_of_a_file_that_states_no_number_of_frames(tmp_path: Path) -> None:
    options = {"movflags": "frag_keyframe+empty_moov"}
    whole = write_clip(tmp_path / "a.mp4", options=H264, container_options=options)
    info = plan_video(str(cut_off(whole, tmp_path / "half.mp4", 0.62)), ALL, None).info
    assert (0 < info.frames < 48, info.cut_off) == (True, True)


def test_a_last_frame_that_is_held_makes_no_further_frames(tmp_path: Path) -> None:
    """As in animations: rate and duration together are the number of frames."""
    with PIL.Image.new("RGB", (64, 48)) as first:
        images = [PIL.Image.fromarray(picture(i, 48, 64)) for i in range(8)]
        first.save(tmp_path / "hold.gif", save_all=True, append_images=images, duration=[100] * 8 + [5000])
    info = plan_video(str(tmp_path / "hold.gif"), ALL, None).info
    assert (info.frames, info.duration_s) == (9, pytest.approx(5.8))
    assert info.fps == pytest.approx(9 / 5.8)


def test_frames_of_two_interleaved_fields_have_a_packet_each(tmp_path: Path) -> None:
    """So the file can be cut at key frames; fields in packets of their own have to be counted."""
    options = H264 | {"x264-params": "tff=1"}
    path = str(write_clip(tmp_path / "interlaced.mp4", options=options))
    info = plan_video(path, ALL, None).info
    assert (info.frames, info.timestamps) == (48, True)
    assert numbers(path) == list(range(48))


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), [("a.gif", "gif", "rgb8"), ("a.apng", "apng", "rgb24")])
def test_animations(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    path = str(write_clip(tmp_path / name, frames=5, codec=codec, fps=10, pix_fmt=pix_fmt))
    info = plan_video(path, ALL, None).info
    assert (info.frames, info.cut_off) == (5, False)
    assert info.fps == pytest.approx(10, rel=0.01)
    assert numbers(path) == list(range(5))


def test_images_are_turned_as_their_tags_say(tmp_path: Path) -> None:
    for i, tag in enumerate((5, 7)):
        exif = PIL.Image.Exif()
        exif[0x0112] = tag
        PIL.Image.fromarray(picture(i, 96, 128)).save(tmp_path / f"{i}.jpg", exif=exif)
    plan = plan_video(str(tmp_path), ALL, None)
    assert (plan.info.height, plan.info.width) == (128, 96)
    (batch,) = decode(str(tmp_path), plan.info, plan.segments[0], size=None, batch_size=2)
    for i, frame in enumerate(batch.frames):
        with PIL.Image.open(tmp_path / f"{i}.jpg") as image:
            expected = np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB"))
        assert np.abs(frame.astype(int) - expected).mean() < 3


def test_joined_recordings_follow_each_other(tmp_path: Path) -> None:
    one = write_clip(tmp_path / "one.ts", options=H264)
    (tmp_path / "joined.ts").write_bytes(one.read_bytes() * 2)
    plan = plan_video(str(tmp_path / "joined.ts"), Sampling(fps=4), None)
    assert (plan.info.frames, plan.info.timestamps) == (96, False)
    assert plan.info.fps == pytest.approx(24, rel=0.01)
    assert len(plan.segments[0].frames) == 16


def test_a_packet_that_cannot_be_decoded_moves_no_other(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.avi", codec="mjpeg", pix_fmt="yuvj420p", frames=20)
    data = bytearray(clip.read_bytes())
    at = [match.start() for match in re.finditer(b"00dc", data)][10] + 8
    data[at : at + 400] = bytes(400)
    clip.write_bytes(data)
    plan = plan_video(str(clip), ALL, None)
    (batch,) = decode(str(clip), plan.info, plan.segments[0], size=None, batch_size=32)
    whole = [(i, time) for i, time in zip(map(number, batch.frames), batch.time_s, strict=True) if i or time == 0]
    assert len(whole) == 19
    assert all(time == pytest.approx(i / 24, abs=1e-3) for i, time in whole)


@pytest.mark.parametrize("segment_frames", [4, 8])
def test_program_streams_are_whole_in_segments(clip: Clip, segment_frames: int) -> None:
    plan = plan_video(clip("mpeg2.mpg"), ALL, segment_frames)
    assert sum(len(segment.frames) for segment in plan.segments) == 48
    assert len(numbers(clip("mpeg2.mpg"))) == 48
