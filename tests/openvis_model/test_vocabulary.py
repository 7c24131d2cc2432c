from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from openvis_model.training.losses import classification_loss
from openvis_model.vocabulary import PROMPTS, Vocabulary, VocabularyEmbedding, prompt_words


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


def test_names_of_data_sets_are_taken_as_they_are() -> None:
    """Neither comments nor synonyms nor slips: each name keeps its row."""
    names = ("#red triangle", "lamp, street", "Polo", "polo")
    vocabulary = Vocabulary.of_dataset(names)
    assert vocabulary.categories == tuple((name,) for name in names)
    with pytest.raises(ValueError, match=r"'polo' stands twice \(categories 0 and 1\)"):
        Vocabulary.of_dataset(["polo", "polo"])
    with pytest.raises(ValueError, match="category 1 has an empty name"):
        Vocabulary.of_dataset(["polo", " "])


def test_json_keeps_every_name(tmp_path: Path) -> None:
    vocabulary = Vocabulary((("#red",), ("lamp, street", "café"), ("Polo",), ("polo",)))
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary
    file = tmp_path / "names.json"
    file.write_text(vocabulary.to_json(), encoding="utf-8")
    assert Vocabulary.read(file) == vocabulary


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[["a"], ', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"a": 1}', "holds a dict; give a list of categories"),
        ("[]", "no categories"),
        ('[["a"], "b"]', "category 1 is 'b'; give a list of its names"),
        ('[["a"], ["b", 3]]', r"category 1 is \['b', 3\]"),
        ('[["a"], []]', "category 1 has an empty name"),
        ('[["a"], ["b", "a"]]', "'a' stands twice"),
    ],
    ids=range(8),
)
def test_bad_json_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "names.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"names.json: vocabulary: .*{message}"):
        Vocabulary.read(file)


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


def test_probabilities_by_hand() -> None:
    """Eq. 4: cosines 1 and 0 at scale ln 3 give softmax(ln 3, 0) = (3/4, 1/4)."""
    vocabulary = VocabularyEmbedding(("a", "b"), torch.eye(2), logit_scale=1.0986123)
    probabilities = vocabulary.probabilities(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert probabilities.flatten().tolist() == pytest.approx([0.75, 0.25, 0.25, 0.75])


def test_sigmoid_probabilities_by_hand() -> None:
    """Cosines 1 and 0 at scale ln 3 and bias ln 2 have odds 6 and 2; the best of two names counts."""
    vocabulary = VocabularyEmbedding(("a", "b"), torch.eye(2), logit_scale=1.0986123, logit_bias=0.6931472)
    assert vocabulary.probabilities(torch.tensor([1.0, 0.0])).tolist() == pytest.approx([6 / 7, 2 / 3])
    best = replace(vocabulary, names=("a",), category=torch.tensor([0, 0]))
    assert best.probabilities(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([6 / 7])


def test_the_best_synonym_scores_a_category_by_hand() -> None:
    """Category a is named (1, 0) and (0, 1), category b (0.6, 0.8); the instance is at (0, 1), the scale ln 3.

    The best name of a has a cosine of 1, that of b 0.8: 3 / (3 + 3^0.8) = 0.554711. The mean of the names of a,
    (0.7071, 0.7071), has one of 0.7071 alone: 3^0.7071 / (3^0.7071 + 3^0.8) = 0.474509.
    """
    names = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    best = VocabularyEmbedding(("a", "b"), names, 1.0986123, torch.tensor([0, 0, 1]))
    mean = VocabularyEmbedding(("a", "b"), F.normalize(torch.stack([names[0] + names[1], names[2]]), dim=1), 1.0986123)
    seen = torch.tensor([0.0, 1.0])
    assert best.probabilities(seen).tolist() == pytest.approx([0.554711, 0.445289], abs=1e-5)
    assert mean.probabilities(seen).tolist() == pytest.approx([0.474509, 0.525491], abs=1e-5)
    assert torch.equal(best.probabilities(seen.expand(2, 3, 2)), best.probabilities(seen).expand(2, 3, 2))


@pytest.mark.usefixtures("as_user")
def test_an_unknown_scoring_of_synonyms_is_named() -> None:
    with pytest.raises(ValueError, match="synonyms: unknown value 'worst'; choose from .*'mean', 'best'"):
        Vocabulary((("a",),), "worst")


def test_how_synonyms_are_scored_is_part_of_the_identity() -> None:
    """That of the mean is the categories alone, as before there was a choice."""
    vocabulary = Vocabulary((("cat", "kitten"), ("dog",)))
    assert vocabulary.identity == vocabulary.categories
    assert replace(vocabulary, synonyms="best").identity != vocabulary.identity
