from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from openvis_model.exemplars import CheckedPicture, PictureContent, PictureExemplar, TrackExemplar
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


def test_lines_hold_exemplars_after_a_colon(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("dog, puppy\nmy mug: a.jpg, ../b.png box 1,2,3,4, track: v/7\nspoon: /c.jpg mask m.png\n")
    vocabulary = Vocabulary.read(file)
    assert vocabulary.categories == (("dog", "puppy"), ("my mug",), ("spoon",))
    assert vocabulary.exemplars == (
        (),
        (
            PictureExemplar(f"{tmp_path}/a.jpg"),
            PictureExemplar(f"{tmp_path.parent}/b.png", (1, 2, 3, 4)),
            TrackExemplar("v", 7),
        ),
        (PictureExemplar("/c.jpg", mask=f"{tmp_path}/m.png"),),
    )
    assert [each.place for each in vocabulary.shown[1:4:2]] == [f"{file}: line 2", f"{file}: line 3"]
    again = tmp_path / "names.json"
    again.write_text(vocabulary.to_json())
    assert Vocabulary.read(again) == vocabulary
    assert Vocabulary.read(file, original="s3://bucket/a/names.txt").shown[1] == PictureExemplar(
        "s3://bucket/b.png", (1, 2, 3, 4)
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["dog", "", "cup: cup.gif"], r"^line 3: 'cup.gif' is neither a picture"),
        (["Star Wars: A New Hope"], r"^line 1: 'A New Hope' is neither .*put a name with a colon into a .json file"),
        (
            ["dog", "mug, cup.jpg"],
            "^line 2: 'cup.jpg' stands where a name is meant; write NAME: PICTURE",
        ),
        (["mug:cup.jpg"], "^line 1: 'mug:cup.jpg' stands where a name is meant"),
        (["mug, cup: cup.jpg"], "^line 1: a category with pictures has one name, 'mug, cup' are 2; write mug: cup.jpg"),
        (["mug: "], "^line 1: '' is neither a picture"),
        ([": cup.jpg"], "category 0 has an empty name"),
        (["mug", "Mug: cup.jpg"], r"'Mug' stands twice \(categories 0 and 1\)"),
        (["mug: cup.jpg", "mug: cup_2.jpg"], r"'mug' stands twice \(categories 0 and 1\)"),
    ],
)
def test_bad_lines_with_exemplars_are_named(lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_lines(lines)


def test_names_with_colons_and_dots_of_data_sets_are_taken_as_they_are() -> None:
    names = ("Star Wars: A New Hope", "cup.jpg", "mug: cup.jpg")
    for vocabulary in (Vocabulary.of_dataset(names), Vocabulary.from_json(Vocabulary.of_dataset(names).to_json())):
        assert (vocabulary.names, vocabulary.shown) == (names, ())
    assert Vocabulary.from_lines(["ratio 1:2", "St. Bernard"]).names == ("ratio 1:2", "St. Bernard")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[["a"], {"name": "b"}]', 'vocabulary: category 1 is {\'name\': \'b\'}; give {"name": "mug", "exemplars"'),
        ('[{"name": "b", "exemplars": []}]', "category 0 is"),
        ('[{"name": "b", "exemplars": "b.jpg"}]', "category 0 is"),
        ('[{"name": "b", "exemplars": ["b"]}]', "category 0: 'b' is neither a picture"),
    ],
)
def test_bad_json_with_exemplars_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_json(text)


def test_lists_hold_lines_and_sequences() -> None:
    vocabulary = Vocabulary.listed(["dog, puppy", ("Star Wars: A New Hope",), "mug: a.jpg"])
    assert vocabulary.categories == (("dog", "puppy"), ("Star Wars: A New Hope",), ("mug",))
    assert vocabulary.shown == (PictureExemplar("a.jpg"),)


def test_exemplars_take_the_place_of_words_of_the_same_name() -> None:
    vocabulary = Vocabulary.of_dataset(["dog", "mug", "cup"])
    shown = vocabulary.illustrated(Vocabulary.from_lines(["mug: a.jpg"]))
    assert (shown.names, shown.exemplars) == (vocabulary.names, ((), (PictureExemplar("a.jpg"),), ()))
    with pytest.raises(ValueError, match="category 'cat' is not among the 3 names; correct or remove it"):
        vocabulary.illustrated(Vocabulary.from_lines(["cat: a.jpg"]))
    with pytest.raises(ValueError, match="category 'dog' has no exemplars; remove it"):
        vocabulary.illustrated(Vocabulary.from_lines(["dog", "mug: a.jpg"]))


def test_what_exemplars_show_is_part_of_the_identity() -> None:
    def identity(digest: str) -> tuple[object, ...]:
        picture = PictureContent(np.zeros((1, 1, 3), np.uint8), None, digest)
        content = CheckedPicture(digest, lambda: picture)
        return replace(vocabulary, exemplars=((), (PictureExemplar("a.jpg", content=content),))).identity

    vocabulary = Vocabulary.from_lines(["dog", "mug"])
    assert len({vocabulary.identity, identity("a"), identity("b")}) == 3
    with pytest.raises(ValueError, match="line 1: a.jpg: was not read"):
        _ = Vocabulary.from_lines(["mug: a.jpg"]).identity


def test_offsets_are_added_to_logits_by_hand() -> None:
    """Cosines 1 and 0 at scale ln 3, and the second one's odds tripled, are even."""
    vocabulary = VocabularyEmbedding(("a", "b"), torch.eye(2), 1.0986123, offset=torch.tensor([0.0, 1.0986123]))
    assert vocabulary.probabilities(torch.tensor([1.0, 0.0])).tolist() == pytest.approx([0.5, 0.5])


def test_unknown_by_hand() -> None:
    """Logits 1, 0, 0, 0 have mean 1/4 and deviation √3/4, so z = √3, and 1 − Φ(√3)⁴ = 0.1564."""
    four = VocabularyEmbedding(("a", "b", "c", "d"), torch.eye(4), logit_scale=1.0)
    assert four.unknown(torch.eye(4)[0]).item() == pytest.approx(0.156413, abs=1e-5)
    # Three more zeros: mean 1/7, deviation √6/7, z = √6.
    compared = replace(four, reference=torch.eye(4)[1:])
    assert compared.unknown(torch.eye(4)[:1]).tolist() == pytest.approx([0.028306], abs=1e-5)
    assert compared.compared == 7
    # Three more ones instead: mean 4/7, deviation √12/7, z = √3/2.
    raised = replace(compared, reference_offset=torch.ones(3))
    assert raised.unknown(torch.eye(4)[:1]).tolist() == pytest.approx([0.576376], abs=1e-5)


def test_unknown_of_a_name_alone() -> None:
    """It is compared with the reference; the scale does not matter."""
    reference = F.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    alone = VocabularyEmbedding(("a",), torch.eye(8)[:1], logit_scale=30.0, reference=reference)
    near, far = alone.unknown(torch.stack([torch.eye(8)[0], reference[7]])).tolist()
    assert near < 0.05 < far
    assert replace(alone, logit_scale=3.0).unknown(torch.eye(8)[0]).item() == pytest.approx(near, abs=1e-4)


def test_unknown_of_names_as_good_as_any() -> None:
    """Without any difference between logits, half of unrelated names would be better."""
    same = VocabularyEmbedding(("a",), torch.eye(2)[:1], logit_scale=1.0)
    assert same.unknown(torch.eye(2)).tolist() == [0.5, 0.5]
