import errno
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from pipelines.video.ffmpeg import demux, open_video
from pipelines.video.index import plan_video
from pipelines.video.options import Sampling
from pipelines.video.plan import MachineError, VideoError
from tests.pipelines.video.clips import Clip, cut_off, write_audio

INVALID_DATA = 1094995529  # FFmpeg's AVERROR_INVALIDDATA


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


@pytest.mark.parametrize(
    ("code", "error"), [(errno.EIO, MachineError), (errno.ESTALE, MachineError), (INVALID_DATA, None)]
)
def test_a_disk_that_fails_is_not_the_end_of_the_file(code: int, error: type[Exception] | None, clip: Clip) -> None:
    with open_video(clip("b_frames.mp4")) as (container, stream):

        class Failing:
            def demux(self, stream: VideoStream) -> Iterator["Packet[VideoStream]"]:
                yield from itertools.islice(container.demux(stream), 5)
                av.error.err_check(-code)

        packets = demux(cast(InputContainer, Failing()), stream)
        assert len(list(itertools.islice(packets, 4))) == 4
        if error is None:
            assert len(list(packets)) == 1
        else:
            with pytest.raises(error, match="cannot be read here"):
                next(packets)


def test_huge_frames_are_refused(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.video.ffmpeg.MAX_PIXELS", 10_000)
    with pytest.raises(VideoError, match=r"^frame size too large \(128x96, limit 10000 pixels\)$"):
        plan_video(clip("b_frames.mp4"), ALL, None)


ALL = Sampling()
