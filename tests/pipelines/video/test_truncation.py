from pathlib import Path

import pytest

from pipelines.video.truncation import is_cut_off
from tests.pipelines.video.clips import H264, cut_off, write_clip

NAMES = {"a.mp4": "mov,mp4,m4a,3gp,3g2,mj2", "a.mkv": "matroska,webm", "a.avi": "avi", "a.ts": "mpegts", "a.flv": "flv"}


@pytest.mark.parametrize("fragmented", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_files_that_were_cut_off_are_recognised(tmp_path: Path, name: str, fragmented: bool) -> None:
    movflags = "frag_keyframe+empty_moov" if fragmented else "faststart"
    options = {"movflags": movflags} if name == "a.mp4" else None
    whole = write_clip(tmp_path / name, options=H264, container_options=options)
    assert not is_cut_off(whole, NAMES[name])
    for share in (0.3, 0.62, 0.99):
        half = cut_off(whole, tmp_path / f"{share}", share)
        multiple = name == "a.ts" and half.stat().st_size % 188 == 0
        assert is_cut_off(half, NAMES[name]) != multiple


@pytest.mark.parametrize("more", [1, 4, 7, 8, 100])
def test_bytes_after_the_last_box_do_no_harm(tmp_path: Path, more: int) -> None:
    whole = write_clip(tmp_path / "a.mp4", frames=2)
    whole.write_bytes(whole.read_bytes() + bytes(more))
    assert not is_cut_off(whole, NAMES["a.mp4"])


def test_what_states_no_size_counts_as_whole(tmp_path: Path) -> None:
    live = write_clip(tmp_path / "a.webm", codec="libvpx-vp9", container_options={"live": "1"})
    assert not is_cut_off(cut_off(live, tmp_path / "half.webm", 0.5), "matroska,webm")
    assert not is_cut_off(live, "ogg")
    for container in NAMES.values():
        (tmp_path / "odd").write_bytes(b"\x1a\x45\xdf\xa3\xff" if "matroska" in container else bytes(500))
        assert not is_cut_off(tmp_path / "odd", container)


def test_packets_of_cameras_have_192_bytes(tmp_path: Path) -> None:
    plain = write_clip(tmp_path / "a.ts", options=H264).read_bytes()
    whole = tmp_path / "a.m2ts"
    whole.write_bytes(b"".join(bytes(4) + plain[at : at + 188] for at in range(0, len(plain), 188)))
    assert not is_cut_off(whole, "mpegts")
    whole.write_bytes(whole.read_bytes()[:-100])
    assert is_cut_off(whole, "mpegts")


@pytest.mark.parametrize("more", [1, 4, 11, 100])
def test_bytes_after_the_last_tag_do_no_harm(tmp_path: Path, more: int) -> None:
    whole = write_clip(tmp_path / "a.flv", frames=2)
    whole.write_bytes(whole.read_bytes() + bytes(more))
    assert not is_cut_off(whole, "flv")
