from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from openvis_model.clip import TextEncoder, WordTokenizer, build_clip, build_tokenizer
from openvis_model.config import mini
from openvis_model.inst_former import InstFormer
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import PROMPTS, Vocabulary
from tests.words import WORDS


@pytest.mark.parametrize(
    ("name", "message"), [("日本", "does not know '日本'"), ("café", "does not know 'café'"), ("★", "'★' has no word")]
)
def test_names_that_the_clip_cannot_read_are_refused(mini_model: InstFormer, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embed_vocabulary(Vocabulary(((name,),)), mini_model.text_encoder)


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


def test_cache_is_keyed_by_content(mini_model: InstFormer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = mini_model.text_encoder
    vocabulary = Vocabulary((("red star",), ("blue disc",)))
    first = embed_vocabulary(vocabulary, encoder, cache=tmp_path)
    embed_vocabulary(Vocabulary((("red star", "blue disc"),)), encoder, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    with torch.no_grad():
        kept = encoder.ln_final.bias.clone()
        encoder.ln_final.bias += 1
        embed_vocabulary(vocabulary, encoder, cache=tmp_path)
        encoder.ln_final.bias.copy_(kept)
    assert len(list(tmp_path.iterdir())) == 3

    monkeypatch.setattr(type(encoder), "forward", None)  # a cached vocabulary needs no text tower
    again = embed_vocabulary(Vocabulary((("red star",), ("blue disc",))), encoder, cache=tmp_path)
    assert torch.equal(first.embeddings, again.embeddings)


def test_cache_tells_encoders_with_the_same_weights_apart(mini_model: InstFormer, tmp_path: Path) -> None:
    config = mini(WORDS).clip
    clips = {name: build_clip(config) for name in ("plain", "heads", "words", "context")}
    architecture = config.architecture | {"quick_gelu": True}
    clips["quick_gelu"] = build_clip(replace(config, architecture=architecture))
    weights = clips["plain"].state_dict()
    for clip in clips.values():
        clip.load_state_dict(weights)
    clips["heads"].transformer.resblocks[0].attn.num_heads = 2
    encoders = {name: TextEncoder(clip, build_tokenizer(config, 16)) for name, clip in clips.items()}
    encoders["words"].tokenizer = WordTokenizer(WORDS[::-1], 16)
    encoders["context"].context_length = 15
    for count, encoder in enumerate(encoders.values(), start=1):
        embed_vocabulary(Vocabulary((("red star",),)), encoder, cache=str(tmp_path))
        assert len(list(tmp_path.iterdir())) == count


def test_a_damaged_cache_file_is_made_again(mini_model: InstFormer, tmp_path: Path) -> None:
    vocabulary = Vocabulary((("red star",),))
    first = embed_vocabulary(vocabulary, mini_model.text_encoder, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    again = embed_vocabulary(vocabulary, mini_model.text_encoder, cache=tmp_path)
    assert torch.equal(first.embeddings, again.embeddings)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [whole]
