from open_clip import get_tokenizer

from openvis_model.inst_former import InstFormer
from openvis_model.reference_names import reference_names
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import Vocabulary
from tests.words import WORDS


def test_common_nouns() -> None:
    names = reference_names(get_tokenizer("ViT-B-32"))
    assert len(names) == len(set(names)) > 200
    assert {"airplane", "traffic light", "zebra"} < set(names)


def test_a_clip_of_few_words_has_those_that_no_prompt_has(mini_model: InstFormer) -> None:
    names = reference_names(mini_model.text_encoder.tokenizer)
    assert {"red", "striped", "star"} <= set(names) < set(WORDS)
    assert not {"photo", "scene", "small"} & set(names)


def test_they_are_embedded_where_asked_for(mini_model: InstFormer) -> None:
    vocabulary = Vocabulary((("red striped star",),))
    assert embed_vocabulary(vocabulary, mini_model.text_encoder).reference is None
    reference = embed_vocabulary(vocabulary, mini_model.text_encoder, reference=True).reference
    assert reference is not None
    assert reference.shape == (len(reference_names(mini_model.text_encoder.tokenizer)), 128)
    assert (reference.norm(dim=1) - 1).abs().max() < 1e-5
