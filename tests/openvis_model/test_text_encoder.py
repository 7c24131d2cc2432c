from pathlib import Path
from typing import Any

import pytest
import torch

from openvis_model.clip import ClipConfig, build_clip, build_text_encoder
from openvis_model.config import mini
from openvis_model.text_encoder import TextEncoder
from openvis_model.tokenizer import WordTokenizer
from openvis_model.towers import TextTowerConfig
from tests import clips
from tests.clips import TOWERS
from tests.words import WORDS

TEXTS = (
    ["a photo of a red striped star.", "star", "There is the blue plain disc in the scene"],
    ["a photo of a star.", "a photo of a red star.", "a photo of a"],  # the last one ends where the others part
    ["star", "star"],
)


@pytest.mark.parametrize("config", [ClipConfig(model="ViT-B-32-quickgelu"), mini(WORDS).clip], ids=["ViT-B-32", "mini"])
def test_embeddings_are_open_clips(config: ClipConfig) -> None:
    """Though the context is short, and what all texts begin with is computed once."""
    clip = build_clip(config).eval()
    encoder = build_text_encoder(config, clip)
    for texts in TEXTS:
        with torch.inference_mode():
            expected = clip.encode_text(encoder.tokenizer(texts), normalize=True)
            assert (encoder(texts) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("kind", TOWERS)
def test_embeddings_are_open_clips_in_each_kind(kind: str, tmp_path: Path) -> None:
    config = clips.small_clip(kind, tmp_path)
    clip = clips.random_clip(config)
    encoder = build_text_encoder(config, clip)
    for texts in TEXTS:
        with torch.inference_mode():
            expected = clip.encode_text(encoder.tokenizer(texts), normalize=True)
            assert (encoder(texts) - expected).abs().max() < 1e-6
    assert set(encoder.clip_state()) == {name for name in clip.state_dict() if not name.startswith("visual.")}
    with pytest.raises(ValueError, match=rf"'red red .* tokens, CLIP reads {encoder.config.context_length}; shorten"):
        encoder(["red " * 30])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (mini(WORDS).clip, "takes 102 tokens, CLIP reads 16"),
        (ClipConfig(model="ViT-B-32"), "takes 102 tokens, CLIP reads 77"),
    ],
    ids=["mini", "ViT-B-32"],
)
def test_too_long_names_are_named(config: ClipConfig, message: str) -> None:
    clip = build_clip(config)
    with pytest.raises(ValueError, match=message):
        build_text_encoder(config, clip)(["red " * 100])


@pytest.mark.parametrize(
    "field", [{"pool_type": "last"}, {"no_causal_mask": True}, {"hf_tokenizer_name": "google/mt5-base"}]
)
def test_towers_that_are_not_clips_are_refused(field: dict[str, Any]) -> None:
    (name,) = field
    with pytest.raises(ValueError, match=f"text_cfg.{name}="):
        TextTowerConfig.of({"embed_dim": 8, "text_cfg": {"width": 8, **field}})
    assert TextTowerConfig.of({"embed_dim": 8, "text_cfg": {"pool_type": "argmax"}}) == TextTowerConfig(embed_dim=8)


def test_weights_of_another_tower_are_refused() -> None:
    tower = TextTowerConfig.of(mini(WORDS).clip.architecture)
    with pytest.raises(ValueError, match=r"(?s)not CLIP's.*Missing"):
        TextEncoder(tower, WordTokenizer(WORDS, tower.context_length), {})
