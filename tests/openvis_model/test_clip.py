import open_clip
import pytest
import torch

from openvis_model.clip import ClipConfig, TextEncoder, WordTokenizer, build_clip, build_tokenizer
from openvis_model.config import mini
from tests.words import WORDS


@pytest.mark.parametrize("config", [ClipConfig(model="ViT-B-32-quickgelu"), mini(WORDS).clip], ids=["ViT-B-32", "mini"])
def test_short_context_gives_open_clips_embeddings(config: ClipConfig) -> None:
    clip = build_clip(config).eval()
    encoder = TextEncoder(clip, build_tokenizer(config, clip.context_length))
    texts = ["a photo of a red striped star.", "star", "There is the blue plain disc in the scene"]
    with torch.inference_mode():
        expected = clip.encode_text(encoder.tokenizer(texts), normalize=True)
        assert (encoder(texts) - expected).abs().max() < 1e-6


def test_word_tokenizer_by_hand() -> None:
    tokenizer = WordTokenizer(("a", "red", "star"), context_length=6)
    assert tokenizer(["A red, star."]).tolist() == [[1, 2, 3, 4, 5, 0]]
    assert WordTokenizer.vocabulary_size(("a", "red", "star")) == 6  # padding, start, three words, end = 5


def test_texts_without_words_are_refused() -> None:
    with pytest.raises(ValueError, match="'日本'"):
        WordTokenizer(("a", "red", "star"), context_length=6)(["日本"])
    with pytest.raises(ValueError, match=r"'\.\.\.' has no word"):
        WordTokenizer(("a", "red", "star"), context_length=6)(["..."])


def test_identity_is_what_weights_do_not_tell() -> None:
    config = ClipConfig(model="ViT-B-32-quickgelu")
    assert TextEncoder(build_clip(config), build_tokenizer(config, 77)).identity == {
        "activation": "QuickGELU",
        "heads": 8,
        "layers": 12,
        "context_length": 77,
        "tokenizer": "bpe",
    }


def test_unknown_words_are_named() -> None:
    with pytest.raises(ValueError, match=r"'dog'.*'a dog'.*3 words"):
        WordTokenizer(("a", "red", "star"), context_length=6)(["a dog"])


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
        TextEncoder(clip, build_tokenizer(config, clip.context_length))(["red " * 100])


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
    ],
)
def test_bad_config_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipConfig(**fields)


def test_models_that_are_not_plain_clip_are_refused() -> None:
    with pytest.raises(ValueError, match="not a plain CLIP"):
        build_clip(ClipConfig(model="coca_ViT-B-32"))
    pooled = open_clip.CLIP(**mini(WORDS).clip.architecture)
    pooled.text_pool_type = "last"
    with pytest.raises(ValueError, match="pool_type='last'"):
        TextEncoder(pooled, WordTokenizer(WORDS, 16))
