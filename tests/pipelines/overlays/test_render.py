from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
import torch

from openvis_model import rle
from pipelines.archive.parts import Rows
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results
from pipelines.overlays.render import _enlargement, render_frame, render_video
from pipelines.shapes.files import encode_video
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name
from tests.pipelines.video.clips import mux, write_clip


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def label_tables(masks: np.ndarray, frames: Sequence[int], fps: float, folder: Path) -> tuple[pa.Table, pa.Table]:
    """Writes exact masks [O, T, H, W] as the labels of frames; returns tracks and masks as read back."""
    tracks, rows = [], []
    for track_id, each in enumerate(masks):
        encoded = rle.encode(torch.from_numpy(np.ascontiguousarray(each)))
        seen = [t for t in range(len(frames)) if encoded.areas[t]]
        tracks.append({"video_id": "v", "track_id": track_id, "category": "blue disc", "score": 0.9 - 0.1 * track_id})
        for t in seen:
            size_and_counts = {"size": list(encoded.size), "counts": encoded.counts[t].decode()}
            rows.append({"video_id": "v", "track_id": track_id, "frame": frames[t], "rle": size_and_counts})
            rows[-1]["time_s"] = frames[t] / fps
    results = Results(Storage(str(folder)))
    part = Rows()
    for table, its in (("videos", [{"video_id": "v"}]), ("tracks", tracks), ("masks", rows)):
        part.add(table, its)
    part.put(results.storage, part_name(1))
    return results.read("tracks", video_id="v"), results.read("masks", video_id="v")


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


EMPTY = SCHEMAS["tracks"].empty_table(), SCHEMAS["masks"].empty_table()


def test_a_shapes_clip_is_enlarged_and_drawn(tmp_path: Path) -> None:
    clip = render(SceneConfig(frames=6), "novel", 0, 1)
    encode_video(tmp_path / "v.mp4", clip.frames, 8)
    tracks, masks = label_tables(clip.masks, range(6), 8, tmp_path / "labels")
    output = tmp_path / "new" / "x.mp4"
    rendered = render_video(tmp_path / "v.mp4", tracks, masks, output, tiles=3)
    assert (rendered.frames, rendered.height, rendered.width, rendered.error) == (6, 384, 512, None)
    assert [path.name for path in output.parent.iterdir()] == ["x.mp4"]
    with av.open(str(output)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 8)
    assert output.read_bytes().index(b"moov") < output.read_bytes().index(b"mdat")

    overlays, plain = decode(output).astype(int), np.repeat(np.repeat(clip.frames, 4, 1), 4, 2).astype(int)
    assert overlays.shape == (6, 384, 512, 3)
    drawn = np.repeat(np.repeat(clip.masks.any(0), 4, 1), 4, 2)
    change = np.abs(overlays - plain).sum(3)
    assert np.median(change[drawn]) > 60
    assert np.median(change[~drawn]) < 15
    assert [(tile.video, tile.time_s) for tile in rendered.tiles] == [("v.mp4", t / 8) for t in (1, 3, 5)]
    assert {tile.image.shape for tile in rendered.tiles} == {(360, 480, 3)}

    again = render_video(tmp_path / "v.mp4", tracks, masks, tmp_path / "again.mp4", tiles=3)
    assert (tmp_path / "again.mp4").read_bytes() == output.read_bytes()
    assert all((a.image == b.image).all() for a, b in zip(again.tiles, rendered.tiles, strict=True))


@pytest.mark.parametrize(("height", "width"), [(400, 480), (402, 510)])
def test_without_labels_the_video_is_unchanged(height: int, width: int, tmp_path: Path) -> None:
    frames = render(SceneConfig(frames=4, height=height, width=width), "valid", 0, 0).frames
    for number, colour in enumerate([(220, 30, 30), (30, 200, 30), (30, 30, 220), (230, 230, 20)]):
        frames[:, 300:380, 100 * number : 100 * number + 80] = colour
    encode_video(tmp_path / "v.mp4", frames, 25)
    rendered = render_video(tmp_path / "v.mp4", *EMPTY, tmp_path / "x.mp4")
    overlays = decode(tmp_path / "x.mp4")
    assert overlays.shape == frames.shape == (rendered.frames, rendered.height, rendered.width, 3)
    error = np.abs(overlays.astype(int) - decode(tmp_path / "v.mp4"))
    assert error.mean() < 3
    assert np.median(error[:, 310:370, :380], (0, 1, 2)).max() <= 4  # another colour matrix would be off by 20


def test_odd_sizes_are_padded(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = 401, 479, "yuv444p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(401, 479), format="rgb24")))
        container.mux(stream.encode())
    rendered = render_video(tmp_path / "v.mkv", *EMPTY, tmp_path / "x.mp4")
    assert decode(tmp_path / "x.mp4").shape == (1, 402, 480, 3)
    assert (rendered.height, rendered.width) == (402, 480)


@pytest.mark.parametrize(("height", "width", "scale"), [(20, 1000, 16), (90, 120, 4), (720, 1280, 1)])
def test_small_frames_are_enlarged_as_far_as_h264_goes(height: int, width: int, scale: int) -> None:
    assert _enlargement(height, width) == scale


def test_slides_keep_their_times(tmp_path: Path) -> None:
    """An hour each, fewer a second than any rate that the encoder knows."""
    clip = write_clip(tmp_path / "a.webm", frames=3, codec="libvpx-vp9", fps=30)
    slides = mux(tmp_path / "slides.webm", clip, times=[0, 3_600_000, 7_200_000])
    assert render_video(Path(slides), *EMPTY, tmp_path / "x.mp4").frames == 3
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert [round(float(frame.time or 0)) for frame in container.decode(video=0)] == [0, 3600, 7200]


def test_masks_hold_until_the_next_labelled_frame(tmp_path: Path) -> None:
    encode_video(tmp_path / "v.mp4", np.stack([grey(400, 480)] * 30), 30)
    masks = np.zeros((1, 4, 400, 480), bool)
    masks[0, 0, 100:200, 100:200] = masks[0, 1, 100:200, 300:400] = masks[0, 3, 250:350, 100:200] = True
    tracks, rows = label_tables(masks, (3, 9, 15, 21), 30, tmp_path / "labels")
    rows = pa.concat_tables([rows, rows.slice(0, 0)]).take([2, 0, 1])  # their order does not matter
    render_video(tmp_path / "v.mp4", tracks, rows, tmp_path / "x.mp4")
    overlays = decode(tmp_path / "x.mp4").astype(int)
    places = {"a": (150, 150), "b": (150, 350), "c": (300, 150)}
    shown = ["".join(n for n, (y, x) in places.items() if np.abs(frame[y, x] - 90).max() > 30) for frame in overlays]
    # Nothing was seen in frame 15; rows do not tell that it was looked at, so the hold ends 1.5 periods after frame 9.
    assert shown == [""] * 3 + ["a"] * 6 + ["b"] * 10 + [""] * 2 + ["c"] * 9


def test_scores_select_tracks(tmp_path: Path) -> None:
    encode_video(tmp_path / "v.mp4", np.stack([grey(400, 480)] * 2), 30)
    masks = np.zeros((3, 2, 400, 480), bool)
    for i in range(3):
        masks[i, i != 0 :, 100:200, 20 + 150 * i : 120 + 150 * i] = True  # the best one is in both frames
    tables = label_tables(masks, range(2), 30, tmp_path / "labels")

    def shown(**selection: Any) -> list[int]:
        render_video(tmp_path / "v.mp4", *tables, tmp_path / "x.mp4", **selection)
        frame = decode(tmp_path / "x.mp4")[1].astype(int)
        return [i for i in range(3) if np.abs(frame[150, 70 + 150 * i] - 90).max() > 30]

    assert shown() == [0, 1, 2]
    assert shown(min_score=0.75) == [0, 1]
    assert shown(most=1) == [0]
    assert shown(most=2, min_score=0.85) == [0]


def test_variable_frame_rate_is_kept(tmp_path: Path) -> None:
    times = [0, 40, 80, 400, 440, 1000]  # ms
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 400, 480, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time in times:
            frame = av.VideoFrame.from_ndarray(grey(400, 480), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    seen: list[tuple[int, int]] = []
    render_video(
        tmp_path / "v.mkv", *EMPTY, tmp_path / "x.mp4", progress=lambda done, expected: seen.append((done, expected))
    )
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert [round(frame.time * 1000) for frame in container.decode(video=0)] == times
    assert seen == [(n, 6) for n in range(1, 7)]


def test_rotated_videos_are_upright(tmp_path: Path) -> None:
    frames = np.stack([grey(400, 600)] * 3)
    frames[:, :100, :100] = (255, 0, 0)  # top left, as stored
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 400, 600, "yuv420p"
        stream.set_display_rotation(90)  # counter-clockwise
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    render_video(tmp_path / "v.mp4", *EMPTY, tmp_path / "x.mp4")
    overlays = decode(tmp_path / "x.mp4").astype(int)
    assert overlays.shape == (3, 600, 400, 3)
    red = overlays[0, ..., 0] - overlays[0, ..., 1] > 100
    assert red[510:590, 10:90].all()  # bottom left
    assert not red[:490].any()


def test_a_truncated_video_is_rendered_as_far_as_it_goes(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (12, 400, 480, 3), dtype=np.uint8)
    encode_video(tmp_path / "whole.mp4", frames, 25)
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "v.mp4").write_bytes(content[: len(content) // 2])
    rendered = render_video(tmp_path / "v.mp4", *EMPTY, tmp_path / "x.mp4")
    assert 2 <= rendered.frames < 12
    assert len(decode(tmp_path / "x.mp4")) == rendered.frames


def test_bad_input_leaves_no_file(tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    encode_video(video, np.stack([grey(96, 128)] * 2), 8)
    content = video.read_bytes()
    wrong = label_tables(np.ones((1, 2, 96, 130), bool), range(2), 8, tmp_path / "labels")
    (tmp_path / "junk.mp4").write_text("junk")
    cases: list[tuple[Path, Any, Path, str]] = [
        (video, EMPTY, video, "is the video itself"),
        (video, EMPTY, tmp_path / "x.avi", "must end with .mp4"),
        (video, EMPTY, video / "x.mp4", "output: cannot write"),
        (video, wrong, tmp_path / "x.mp4", r"expected \(96, 128\) pixels, got \(96, 130\)"),
        (tmp_path / "junk.mp4", EMPTY, tmp_path / "x.mp4", "video: cannot read .*junk.mp4"),
        (tmp_path / "none.mp4", EMPTY, tmp_path / "x.mp4", "video: cannot read .*none.mp4"),
    ]
    for source, tables, output, message in cases:
        with pytest.raises(ValueError, match=message):
            render_video(source, *tables, output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["junk.mp4", "labels", "v.mp4"]
    assert video.read_bytes() == content


def test_a_picture_is_of_the_frame_that_was_asked_for(tmp_path: Path) -> None:
    frames = np.stack([np.full((96, 128, 3), 10 * number, np.uint8) for number in range(20)])
    encode_video(tmp_path / "v.mp4", frames, 8)
    for number in (0, 7, 19):
        assert np.abs(render_frame(tmp_path / "v.mp4", number, []).astype(int) - 10 * number).max() < 6
    with pytest.raises(ValueError, match=r"cannot read .*v.mp4 \(frame 20 cannot be decoded\)"):
        render_frame(tmp_path / "v.mp4", 20, [])
    with pytest.raises(ValueError, match="cannot read"):
        render_frame(tmp_path / "absent.mp4", 0, [])
