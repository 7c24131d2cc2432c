from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openvis_model.clip import ClipConfig, build_clip, build_text_encoder, nearest
from openvis_model.clip_towers import guided_tower
from openvis_model.config import mini
from openvis_model.convolutional_stem import ConvolutionalStem
from tests.clips import small_clip
from tests.words import WORDS


def test_a_vision_transformer_of_openai_has_quick_gelu() -> None:
    clip = build_clip(ClipConfig(model="ViT-B-32-quickgelu"))
    assert type(clip.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "either model or architecture"),
        ({"model": "ViT-B-32", "architecture": {"embed_dim": 4}}, "either model or architecture"),
        ({"model": "ViT-B-33"}, "no model 'ViT-B-33'"),
        ({"architecture": {"text_cfg": {"vocab_size": 9}}, "words": ("a",)}, "vocab_size = 4, got 9"),
        ({"architecture": {"embed_dim": 4}, "words": ("a",)}, "vocab_size = 4, got None"),
        ({"model": "ViT-B-32", "words": ("a",)}, "vocab_size = 4, got None"),
        ({"model": "ViT-B-32", "words": "red"}, "expected several words, got the text 'red'"),
        ({"architecture": {"vision_cfg": {"layer": 2}}}, "architecture.vision_cfg.layer: .*did you mean 'layers'"),
        ({"architecture": {"text_cfg": {"head": 2}}}, "architecture.text_cfg.head: .*did you mean 'heads'"),
        ({"architecture": {"text_cfg": 3}}, "architecture.text_cfg: expected fields, got 3"),
        ({"architecture": {"vision": {}}}, "architecture.vision: .*did you mean 'vision_cfg'"),
        (
            {"model": "ViT-B-32", "picture_size": 256},
            "picture_size: expected a multiple of 32 up to 224 pixels, got 256",
        ),
        ({"model": "ViT-B-32", "picture_size": 40}, "picture_size: expected a multiple of 32 up to 224 pixels, got 40"),
        ({"model": "PE-Core-B-16", "picture_size": 112}, "expected CLIP's own vision transformer"),
    ],
)
def test_bad_config_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipConfig(**fields)


def test_models_that_are_not_plain_clip_are_refused() -> None:
    with pytest.raises(ValueError, match="not a plain CLIP"):
        build_clip(ClipConfig(model="coca_ViT-B-32"))


@pytest.mark.parametrize(
    ("model", "mean"),
    [("ViT-B-32", 0.48145466), ("EVA02-B-16", 0.48145466), ("PE-Core-B-16", 0.5), ("ViT-B-16-SigLIP2", 0.5)],
)
def test_pixels_are_normalised_as_each_models_own_preprocessing_does(model: str, mean: float) -> None:
    assert ClipConfig(model=model).pixel_mean[0] == mean
    assert ClipConfig(model=model, pixel_mean=(0.1, 0.2, 0.3)).pixel_mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("name", "hint"), [("vit-b32", "did you mean 'ViT-B-32'?"), ("Vit-L-14", "did you mean 'ViT-L-14'?"), ("clip", "")]
)
def test_the_nearest_name(name: str, hint: str) -> None:
    assert nearest(name, ("ViT-B-32", "ViT-L-14")) == hint


def test_each_kind_can_have_a_convolutional_stem(tmp_path: Path) -> None:
    for config in (mini(WORDS).clip, replace(small_clip("eva02", tmp_path), stem="convolutional")):
        stem = guided_tower(build_clip(config).visual).stem
        assert isinstance(stem, ConvolutionalStem)
    with pytest.raises(ValueError, match="clip: expected a vision transformer, got ModifiedResNet"):
        build_clip(ClipConfig(model="RN50", stem="convolutional"))


def test_the_text_encoder_shares_clips_parameters() -> None:
    """So that training either trains both."""
    config = mini(WORDS).clip
    clip = build_clip(config)
    encoder = build_text_encoder(config, clip)
    with torch.no_grad():
        clip.text_projection.mul_(2)
    assert encoder.text_projection is clip.text_projection
    assert {name for name, _ in clip.named_parameters() if not name.startswith("visual.")} == {
        name for name, _ in encoder.named_parameters()
    }
