from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from openvis_model.clip import build_clip, build_text_encoder
from openvis_model.crop_clip import CropClip
from openvis_model.exemplars import CheckedPicture, PictureContent, PictureExemplar, TrackExemplar
from openvis_model.inst_former import InstFormer
from openvis_model.picture_encoder import PictureEncoder
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


VECTORS = F.normalize(torch.randn(3, 128, generator=torch.Generator().manual_seed(0)), dim=1).numpy()
TRACKS = tuple(TrackExemplar("v", number, embedding=vector) for number, vector in enumerate(VECTORS))


def never() -> PictureEncoder:
    raise AssertionError("the vision tower is loaded without need")


def test_tracks_alone_are_their_embeddings(mini_model: InstFormer) -> None:
    vocabulary = Vocabulary((("my star",), ("your star",)), exemplars=(TRACKS[:2], TRACKS[2:]))
    embedded = embed_vocabulary(vocabulary, mini_model.text_encoder, never)
    first, second, third = (torch.tensor(each.embedding) for each in TRACKS)
    expected = torch.stack([F.normalize(first + second, dim=0), third])
    torch.testing.assert_close(embedded.embeddings, expected)
    assert embedded.offset is None
    best = embed_vocabulary(replace(vocabulary, synonyms="best"), mini_model.text_encoder, never)
    torch.testing.assert_close(best.embeddings, torch.stack([first, second, third]))
    assert best.category is not None
    assert best.category.tolist() == [0, 0, 1]


def test_whether_tracks_alone_fit_is_judged_by_objects_of_no_kind(mini_model: InstFormer) -> None:
    """Objects are near to each other whatever they are, so names alone would make every track known."""
    pictures = PictureEncoder(mini_model.classifier, short_side=96)
    objects = pictures.reference()
    own, others = objects[:3], objects[3:]
    tracks = tuple(TrackExemplar("v", number, embedding=vector) for number, vector in enumerate(own.numpy()))
    names = tuple((f"object {number}",) for number in range(3))
    vocabulary = Vocabulary(names, exemplars=tuple((track,) for track in tracks))
    plain = embed_vocabulary(vocabulary, mini_model.text_encoder, never)
    embedded = embed_vocabulary(vocabulary, mini_model.text_encoder, lambda: pictures, reference=True)
    torch.testing.assert_close(embedded.probabilities(objects), plain.probabilities(objects))
    known = embedded.unknown(own).mean()
    assert known < 0.5 * embedded.unknown(others).mean()
    assert embedded.unknown(others).median() > 0.2


def test_words_stay_as_they_are_beside_exemplars(mini_model: InstFormer) -> None:
    """Their rows and logits; those of exemplars are calibrated."""
    words = Vocabulary((("red striped star",), ("blue plain disc", "green dotted ring")))
    mixed = Vocabulary((words.categories[0], ("my star",), words.categories[1]), exemplars=((), TRACKS[:1], ()))
    pictures = PictureEncoder(mini_model.classifier, short_side=96)
    alone = embed_vocabulary(words, mini_model.text_encoder, never)
    embedded = embed_vocabulary(mixed, mini_model.text_encoder, lambda: pictures)
    assert embedded.names == ("red striped star", "my star", "blue plain disc")
    assert torch.equal(embedded.embeddings[[0, 2]], alone.embeddings)
    assert embedded.offset is not None
    assert embedded.offset[[0, 2]].tolist() == [0, 0]
    level = torch.logsumexp(embedded.logit_scale * pictures.reference() @ embedded.embeddings.T + embedded.offset, 0)
    assert float(level[1]) == pytest.approx(float(level[[0, 2]].mean()), abs=1e-3)
    with pytest.raises(ValueError, match="has exemplars, which need the model's vision tower"):
        embed_vocabulary(mixed, mini_model.text_encoder)


def test_exemplars_that_were_not_read_are_told(mini_model: InstFormer) -> None:
    for line, message in (("mug: a.jpg", "line 1: a.jpg: was not read"), ("mug: track: v/1", "track: v/1: was not")):
        with pytest.raises(ValueError, match=message):
            embed_vocabulary(Vocabulary.from_lines([line]), mini_model.text_encoder, never)


def test_a_siglips_pictures_are_as_likely_as_anything(tmp_path: Path) -> None:
    """Their cosines alone would make all probabilities one."""
    config = small_clip("siglip", tmp_path)
    clip = build_clip(config)
    encoder = build_text_encoder(config, clip)
    pictures = PictureEncoder(CropClip(clip.visual, short_side=64), short_side=64)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = CheckedPicture("", lambda: PictureContent(pixels, None, ""))
    exemplar = PictureExemplar("a.png", content=content)
    vocabulary = Vocabulary((("mug",),), exemplars=((exemplar,),))
    embedded = embed_vocabulary(vocabulary, encoder, lambda: pictures)
    assert embedded.offset is not None
    assert embedded.logit_bias is not None
    assert embedded.probabilities(pictures.reference()).mean() < 0.5


def test_a_few_names_are_embedded_as_many_are(mini_model: InstFormer) -> None:
    """Few go through the text tower with all prompts at once."""
    names = ("red star", "striped star", "blue disc", "green disc", "dotted star", "red disc")
    few, many = (
        embed_vocabulary(Vocabulary(tuple((name,) for name in some)), mini_model.text_encoder).embeddings
        for some in (names[:3], names)
    )
    assert (few - many[:3]).abs().max() < 1e-6
