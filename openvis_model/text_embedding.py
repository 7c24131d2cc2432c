"""Embeds a vocabulary with CLIP's text tower (OpenVIS, Eq. 4)."""

from itertools import chain

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from openvis_model.text_encoder import TextEncoder
from openvis_model.vocabulary import PROMPTS, Vocabulary, VocabularyEmbedding


@torch.no_grad()
def embed_vocabulary(vocabulary: Vocabulary, encoder: TextEncoder, *, batch_size: int = 512) -> VocabularyEmbedding:
    """Embeds every name with every prompt of `PROMPTS`.

    Averages over prompts, normalises, averages over the synonyms of a category, and normalises again.

    Args:
        vocabulary: the K categories.
        encoder: CLIP's text tower.
        batch_size: texts per forward pass.

    Raises:
        ValueError: for a name that the text tower cannot read (too long, without words, or with unknown ones).
    """
    embeddings = _embed(vocabulary, encoder, batch_size)
    return VocabularyEmbedding(vocabulary.names, embeddings, float(encoder.logit_scale.exp()))


def _embed(vocabulary: Vocabulary, encoder: TextEncoder, batch_size: int) -> Float[Tensor, "K D"]:
    names = list(chain.from_iterable(vocabulary.categories))
    for name in names:
        encoder.tokenizer.encode(name)  # refuses a name without words; within a prompt it would go unnoticed
    batches = [names[i : i + batch_size] for i in range(0, len(names), batch_size)]
    # Texts of one prompt begin alike, which the encoder computes once.
    embedded = [encoder([prompt.format(n) for n in batch]).cpu() for prompt in PROMPTS for batch in batches]
    per_name = F.normalize(torch.cat(embedded).unflatten(0, (len(PROMPTS), -1)).mean(0), dim=-1)
    per_category = [group.mean(0) for group in per_name.split([len(names) for names in vocabulary.categories])]
    return F.normalize(torch.stack(per_category), dim=-1)
