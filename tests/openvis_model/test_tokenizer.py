from pathlib import Path

import pytest

from openvis_model.tokenizer import WordTokenizer, read_files, write_files


def test_word_tokenizer_by_hand() -> None:
    tokenizer = WordTokenizer(("a", "red", "star"), context_length=6)
    assert tokenizer(["A red, star."]).tolist() == [[1, 2, 3, 4, 5, 0]]
    assert WordTokenizer.vocabulary_size(("a", "red", "star")) == 6  # padding, start, three words, end = 5


def test_texts_without_words_are_refused() -> None:
    with pytest.raises(ValueError, match="'日本'"):
        WordTokenizer(("a", "red", "star"), context_length=6)(["日本"])
    with pytest.raises(ValueError, match=r"'\.\.\.' has no word"):
        WordTokenizer(("a", "red", "star"), context_length=6)(["..."])


def test_unknown_words_are_named() -> None:
    with pytest.raises(ValueError, match=r"'dog'.*'a dog'.*3 words"):
        WordTokenizer(("a", "red", "star"), context_length=6)(["a dog"])


def test_files_of_a_tokenizer_come_back_as_they_were(tmp_path: Path) -> None:
    """Code and other things beside them are left alone."""
    contents = {"tokenizer.json": b"{}", "spiece.model": bytes(range(256)), "empty.json": b""}
    for name, content in (contents | {"own.py": b"harm"}).items():
        (tmp_path / name).write_bytes(content)
    files = read_files(tmp_path)
    (tmp_path / "copy").mkdir()
    write_files(files, tmp_path / "copy")
    assert {file.name: file.read_bytes() for file in (tmp_path / "copy").iterdir()} == contents
