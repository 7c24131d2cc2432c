import itertools
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from pipelines.video import decord_reader
from pipelines.video.decord_reader import decord_agrees, decord_frames
from tests.pipelines.video.clips import CLIPS, Clip, number, write_audio

TIMES_S = np.arange(48) / 24


@pytest.mark.parametrize("name", ["b_frames.mp4", "b_frames.mkv", "vp9.webm", "variable.mp4"])
def test_agrees_with_an_index(clip: Clip, name: str) -> None:
    times = np.array(CLIPS[name][0].get("times", TIMES_S), dtype=float)
    assert decord_agrees(clip(name), times)
    assert not decord_agrees(clip(name), times[:-1])
    times[20] += 0.01
    assert not decord_agrees(clip(name), times)


def test_does_not_agree_where_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "junk.mp4").write_bytes(b"junk" * 1000)
    write_audio(tmp_path / "sound.mp4")
    for name in ("none.mp4", "junk.mp4", "sound.mp4"):
        assert not decord_agrees(str(tmp_path / name), TIMES_S)


def test_is_not_for_long_videos_or_where_it_is_not_installed(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(decord_reader, "_MAX_FRAMES", 47)
        assert not decord_agrees(clip("b_frames.mp4"), TIMES_S)
    monkeypatch.setattr(decord_reader, "decord", None)
    assert not decord_agrees(clip("b_frames.mp4"), TIMES_S)


@pytest.mark.parametrize("name", ["b_frames.mp4", "vp9.webm"])
@pytest.mark.parametrize("size", [(96, 128), (40, 56)])
def test_reads_the_frames_asked_for(clip: Clip, name: str, size: tuple[int, int]) -> None:
    asked = np.array([3, 4, 17, 47])
    images = list(decord_frames(clip(name), asked, size))
    assert [number(image) for image in images] == asked.tolist()
    assert {image.shape for image in images} == {(*size, 3)}


def test_ends_early_where_it_fails(tmp_path: Path, clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not list(decord_frames(str(tmp_path / "none.mp4"), np.arange(4), (96, 128)))
    images = decord_frames(clip("b_frames.mp4"), np.arange(4), (96, 128))
    assert [number(image) for image in itertools.islice(images, 2)] == [0, 1]
    monkeypatch.setattr(decord_reader.decord.VideoReader, "next", Mock(side_effect=decord_reader.decord.DECORDError))
    assert not list(images)
