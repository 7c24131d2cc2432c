from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from openvis_model.clip import TextEncoder, WordTokenizer, build_clip, build_tokenizer
from openvis_model.config import mini
from openvis_model.inst_former import InstFormer
from openvis_model.losses import classification_loss
from openvis_model.vocabulary import PROMPTS, Vocabulary, VocabularyEmbedding, embed_vocabulary, prompt_words
from tests.conftest import WORDS


def test_fourteen_prompts_of_ovseg() -> None:
    assert len(set(PROMPTS)) == 14
    assert all(prompt.count("{}") == 1 for prompt in PROMPTS)


def test_prompt_words_by_hand() -> None:
    prompts = {"a", "photo", "of", "this", "is", "there", "in", "the", "scene", "small", "medium", "large"}
    assert prompt_words(["Red star", "bow-tie"]) == tuple(sorted(prompts | {"red", "star", "bow", "tie"}))


def test_lines_hold_categories_and_commas_separate_synonyms() -> None:
    vocabulary = Vocabulary.from_lines(["# things", "sofa, couch", "", "  dog "])
    assert vocabulary.categories == (("sofa", "couch"), ("dog",))
    assert vocabulary.names == ("sofa", "dog")


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no categories"),
        (["dog", "cat, , puss"], r"category 1 has an empty name \(\['cat', '', 'puss'\]\)"),
        (["dog", "cat, Dog"], r"'Dog' stands twice \(categories 0 and 1\)"),
        (["cat, cat"], r"'cat' stands twice \(categories 0 and 0\)"),
        (["cat, Cat"], r"'Cat' stands twice \(categories 0 and 0\)"),
        (["red cat", "red   CAT"], r"'red CAT' stands twice \(categories 0 and 1\)"),
        ("dog", "expected several lines, got the text 'dog'"),
    ],
)
def test_bad_vocabularies_are_refused(lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_lines(lines)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("categories", ["dog", ("dog", "cat")])
def test_letters_are_not_taken_for_names(categories: object) -> None:
    with pytest.raises(ValueError, match=r"'dog' stands where a sequence is meant; write \('dog',\)"):
        Vocabulary(categories)


def test_names_are_kept_with_single_spaces() -> None:
    assert Vocabulary(((" red \t star", "Bow"),)).categories == (("red star", "Bow"),)


@pytest.mark.parametrize(
    ("name", "message"), [("日本", "does not know '日本'"), ("café", "does not know 'café'"), ("★", "'★' has no word")]
)
def test_names_that_the_clip_cannot_read_are_refused(mini_model: InstFormer, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        embed_vocabulary(Vocabulary(((name,),)), mini_model.text_encoder)


def test_training_can_use_the_embeddings(vocabulary: VocabularyEmbedding) -> None:
    tokens = F.normalize(torch.randn(2, 128), dim=-1).requires_grad_()
    classification_loss(tokens, vocabulary.embeddings, torch.tensor([0, 2]), vocabulary.logit_scale).backward()
    assert tokens.grad is not None
    assert tokens.grad.any()


def test_read_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("\ufeffdog\ncafé\n", encoding="utf-8")
    assert Vocabulary.read(file).names == ("dog", "café")
    file.write_text("# nothing\n")
    with pytest.raises(ValueError, match=r"names\.txt.*no categories"):
        Vocabulary.read(file)
    with pytest.raises(ValueError, match=r"absent\.txt"):
        Vocabulary.read(tmp_path / "absent.txt")


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


def test_probabilities_by_hand() -> None:
    """Eq. 4: cosines 1 and 0 at scale ln 3 give softmax(ln 3, 0) = (3/4, 1/4)."""
    vocabulary = VocabularyEmbedding(("a", "b"), torch.eye(2), logit_scale=1.0986123)
    probabilities = vocabulary.probabilities(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert probabilities.flatten().tolist() == pytest.approx([0.75, 0.25, 0.25, 0.75])


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
