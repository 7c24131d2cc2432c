import gc
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets.documents import Document, read_document, read_json


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


def lifted(path: Path, content: str | bytes) -> Document:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_document(str(path), lambda document: document)


def restored(value: Any, document: Document) -> Any:
    """The content with the texts at their places."""
    if isinstance(value, list):
        return [restored(each, document) for each in value]
    if not isinstance(value, dict):
        return value
    texts = [document.lifted.data[a:b].tobytes() for a, b in zip(*document.lifted[1:], strict=True)]
    return {
        key: json.loads(b'"' + texts[each] + b'"')
        if key in ("counts", "rle") and type(each) is int
        else restored(each, document)
        for key, each in value.items()
    }


@pytest.mark.parametrize(
    ("content", "times"),
    [
        (
            r'[{"size": [2, 3], "counts": "06"}, {"counts" : "a\\b\\", "x": "\"counts\": \"no\""}]'.replace(
                " :", "\n:\t"
            ),
            2,
        ),
        (r'{"rle":"1\\","name":"counts","counts":[1,5],"é":{"counts":"","rle":null}}', 2),
        (r'["counts", "rle", {"account": "s", "counts ": "t", "counts\t": "u", "": "v", "counts": "\u0030"}]', 1),
        ('[{"score": 0.5, "segmentations": [' + ", ".join(['{"counts": "06"}'] * 1200) + "]}]", 1200),
        ('{"counts": ' * 3 + '"deep"' + "}" * 3, 1),
        (r'{"the \"counts": "06", "counts": "say \"no\""}', 0),
        (r'{"the \"counts": "06", "counts": "\\\\"}', 1),
        ('"counts"', 0),
        (" 7 ", 0),
    ],
)
def test_run_lengths_are_lifted_and_nothing_else_changes(tmp_path: Path, content: str, times: int) -> None:
    document = lifted(tmp_path / "a.json", content)
    assert (len(document.lifted.begins), document.plain) == (times, False)
    assert restored(document.content, document) == json.loads(content)
    assert document.sha256 == hashlib.sha256(content.encode()).hexdigest()


@pytest.mark.parametrize(
    "content",
    ['[{"counts": "06"}, {"counts": 7}]', '{"rle" : -1, "counts": "06"}', r'[{"c\u006funts": 0}, {"counts": "06"}]'],
)
def test_where_a_file_has_numbers_nothing_is_lifted(tmp_path: Path, content: str) -> None:
    """They would be taken for places of texts."""
    document = lifted(tmp_path / "a.json", content)
    assert document.content == json.loads(content)
    assert len(document.lifted.begins) == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_documents_may_have_any_encoding_of_unicode(encoding: str, tmp_path: Path) -> None:
    document = lifted(tmp_path / "a.json", '{"counts": "06", "name": "café"}'.encode(encoding))
    assert (document.content, document.plain) == ({"counts": "06", "name": "café"}, True)


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"counts": "06',
        '{"counts": "06"5}',
        '{"counts": "06" "0"}',
        '["\\"',
        '"\\',
        '[{"counts"',
        '[{"counts":',
        "\xff",
    ],
)
def test_damaged_documents_are_refused_as_they_stand(tmp_path: Path, content: str) -> None:
    """The position of the error is one in the file."""
    path = tmp_path / "a.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match="a.json: not JSON, or cut off") as expected:
        read_json(str(path))
    with pytest.raises(ValueError, match="a.json: not JSON, or cut off") as error:
        read_document(str(path), lambda document: document)
    assert str(error.value) == str(expected.value)


def test_what_is_refused_is_read_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"counts": "06"}')
    seen = []

    def refuse(document: Document) -> None:
        seen.append((document.content["counts"], document.plain))
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        read_document(str(path), refuse)
    assert seen == [(0, False), ("06", True)]
    assert gc.isenabled()
