import contextlib
import json
import re
from pathlib import Path

import pytest
import torch
from open_clip.tokenizer import HFTokenizer

from openvis_model.hub_tokenizer import HubTokenizer
from tests.clips import SIGLIP_TEXT, write_tokenizer

TEXTS = ["a photo of a red striped star.", "Star!", "zebra star"]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return write_tokenizer(tmp_path / "tokenizer")


def test_ids_are_open_clips(folder: str) -> None:
    ids = HubTokenizer(folder, SIGLIP_TEXT, 16)(TEXTS)
    assert torch.equal(ids, HFTokenizer(folder, context_length=16, clean="canonicalize")(TEXTS))
    assert ids.shape == (3, 16)


def test_encode_leaves_the_end_out(folder: str) -> None:
    tokenizer = HubTokenizer(folder, SIGLIP_TEXT, 16)
    assert tokenizer.encode("Red, star!") == tokenizer(["red star"])[0, :2].tolist()


@pytest.mark.parametrize("text", ["zebra", "日本", "…", "!?"])
def test_a_text_without_a_known_part_is_named(folder: str, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"vocabulary: {text!r} has no part that")):
        HubTokenizer(folder, SIGLIP_TEXT, 16).encode(text)


def test_a_word_that_is_known_suffices(folder: str) -> None:
    assert len(HubTokenizer(folder, SIGLIP_TEXT, 16).encode("zebra star")) == 2


def test_it_is_built_from_its_files_alone(folder: str) -> None:
    first = HubTokenizer(folder, SIGLIP_TEXT, 16)
    assert "tokenizer.json" in first.files
    for file in Path(folder).iterdir():
        file.unlink()
    again = HubTokenizer.of_files(first.files, SIGLIP_TEXT, 16)
    assert torch.equal(again(TEXTS), first(TEXTS))
    assert {name: content.tolist() for name, content in again.files.items()} == {
        name: content.tolist() for name, content in first.files.items()
    }


def test_code_beside_a_tokenizer_is_not_run(folder: str, tmp_path: Path) -> None:
    """Not even if the config asks for it."""
    config = Path(folder) / "tokenizer_config.json"
    values = json.loads(config.read_text()) | {
        "tokenizer_class": "Own",
        "auto_map": {"AutoTokenizer": [None, "own.Own"]},
    }
    config.write_text(json.dumps(values))
    (Path(folder) / "own.py").write_text(f"open({str(tmp_path / 'harmed')!r}, 'w').close()\nclass Own: pass\n")
    text = SIGLIP_TEXT | {"tokenizer_kwargs": {"clean": "canonicalize", "trust_remote_code": True}}
    with contextlib.suppress(ValueError):
        HubTokenizer(folder, text, 16)
    assert not (tmp_path / "harmed").exists()


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network and with an empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"timm/ViT-B-16-SigLIP2/tokenizer\.json, is neither in .*hf download timm/ViT"
    ):
        HubTokenizer("timm/ViT-B-16-SigLIP2", SIGLIP_TEXT, 64)
