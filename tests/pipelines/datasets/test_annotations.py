import hashlib
from pathlib import Path

import pytest

from pipelines.datasets.annotations import GroundTruth, Mask, read_json


def test_json_comes_with_its_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": [1, null]}\n')
    assert read_json(str(path)) == ({"a": [1, None]}, hashlib.sha256(b'{"a": [1, null]}\n').hexdigest())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_may_have_any_encoding_of_unicode(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('["café"]', encoding=encoding)
    assert read_json(str(path)) == (["café"], hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("content", [b"", b'[{"a": 1}', b"\xff\xfe", b"{'a': 1}"])
def test_files_that_are_not_json_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a.json: not JSON, or cut off"):
        read_json(str(path))


def test_files_that_are_nested_too_deeply_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" * 200_000 + "]" * 200_000)
    with pytest.raises(ValueError, match="a.json: nested too deeply"):
        read_json(str(path))


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a.json: cannot be read .No such file"):
        read_json(str(tmp_path / "a.json"))
    with pytest.raises(ValueError, match="cannot be read .Is a directory"):
        read_json(str(tmp_path))


def test_masks_with_the_same_pixels_are_equal() -> None:
    """Predictions that share their masks are found by it."""
    assert {(Mask(2, 3, b"06"),), (Mask(2, 3, b"06"),)} == {(Mask(2, 3, b"06"),)}
    assert Mask(2, 3, b"06") != Mask(3, 2, b"06")


def test_a_ground_truth_has_no_warnings_of_its_own() -> None:
    assert GroundTruth(path="", sha256="", videos=(), categories=(), tracks=()).warnings == {}
