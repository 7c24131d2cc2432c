from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from openvis_model.clip import build_clip, build_text_encoder
from openvis_model.inst_former import InstFormer
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import PROMPTS, Vocabulary
from tests.clips import small_clip


@pytest.mark.parametrize(
    ("name", "message"), [("日本", "does not know '日本'"), ("café", "does not know 'café'"), ("★", "'★' has no word")]
)
def test_names_that_the_clip_cannot_read_are_refused(mini_model: InstFormer, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embed_vocabulary(Vocabulary(((name,),)), mini_model.text_encoder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("日本", "vocabulary: '日本' has no part"),
        ("zebra", "vocabulary: 'zebra' has no part"),
        ("red " * 20, "red red.* tokens, CLIP reads 16; shorten the name"),
    ],
)
def test_names_that_a_siglip_cannot_read_are_refused(name: str, message: str, tmp_path: Path) -> None:
    config = small_clip("siglip", tmp_path)
    with pytest.raises(ValueError, match=message):
        embed_vocabulary(Vocabulary(((name,),)), build_text_encoder(config, build_clip(config)))


def test_the_sigmoids_bias_comes_from_the_weights(tmp_path: Path) -> None:
    for kind, bias in (("siglip", -10.0), ("eva02", None)):
        config = small_clip(kind, tmp_path)
        vocabulary = embed_vocabulary(Vocabulary((("star",),)), build_text_encoder(config, build_clip(config)))
        assert vocabulary.logit_bias == bias


def test_ensemble_is_the_mean_over_prompts_then_over_synonyms(mini_model: InstFormer) -> None:
    encoder = mini_model.text_encoder
    vocabulary = Vocabulary((("red star", "striped star"), ("blue disc",)))
    with torch.inference_mode():
        per_name = {
            name: F.normalize(torch.stack([encoder([prompt.format(name)])[0] for prompt in PROMPTS]).mean(0), dim=0)
            for name in ("red star", "striped star", "blue disc")
        }
    expected = torch.stack(
        [F.normalize((per_name["red star"] + per_name["striped star"]) / 2, dim=0), per_name["blue disc"]]
    )
    embedded = embed_vocabulary(vocabulary, encoder, batch_size=5)
    assert embedded.names == ("red star", "blue disc")
    assert (embedded.embeddings - expected).abs().max() < 1e-6
    assert embedded.logit_scale == pytest.approx(20, rel=1e-5)


def test_for_the_best_synonym_every_name_keeps_its_embedding(mini_model: InstFormer) -> None:
    categories = (("red star", "striped star"), ("blue disc",))
    embedded = embed_vocabulary(Vocabulary(categories, "best"), mini_model.text_encoder)
    alone = embed_vocabulary(Vocabulary((("red star",), ("striped star",), ("blue disc",))), mini_model.text_encoder)
    assert embedded.names == ("red star", "blue disc")
    assert (embedded.embeddings - alone.embeddings).abs().max() < 1e-6
    assert embedded.category is not None
    assert embedded.category.tolist() == [0, 0, 1]


def test_a_few_names_are_embedded_as_many_are(mini_model: InstFormer) -> None:
    """Few go through the text tower with all prompts at once."""
    names = ("red star", "striped star", "blue disc", "green disc", "dotted star", "red disc")
    few, many = (
        embed_vocabulary(Vocabulary(tuple((name,) for name in some)), mini_model.text_encoder).embeddings
        for some in (names[:3], names)
    )
    assert (few - many[:3]).abs().max() < 1e-6
