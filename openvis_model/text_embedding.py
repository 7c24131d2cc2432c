"""Embeds a vocabulary with CLIP's text tower (OpenVIS, Eq. 4)."""

from itertools import chain

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from openvis_model.text_encoder import TextEncoder
from openvis_model.vocabulary import PROMPTS, Vocabulary, VocabularyEmbedding

_FEW = 4
"""Names up to which reading the weights once saves more time than computing beginnings once."""


@torch.no_grad()
def embed_vocabulary(vocabulary: Vocabulary, encoder: TextEncoder, *, batch_size: int = 512) -> VocabularyEmbedding:
    """Embeds every name with every prompt of `PROMPTS`.

    Averages over prompts and normalises. Then it averages over the synonyms of a category and normalises again, unless
    the vocabulary scores a category by its best name.

    Args:
        vocabulary: the K categories.
        encoder: CLIP's text tower.
        batch_size: texts per forward pass.

    Raises:
        ValueError: for a name that the text tower cannot read (too long, without words, or with unknown ones).
    """
    embeddings = _embed(vocabulary, encoder, batch_size)
    sizes, category = [len(names) for names in vocabulary.categories], None
    if vocabulary.synonyms == "best":
        category = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    else:
        embeddings = F.normalize(torch.stack([group.mean(0) for group in embeddings.split(sizes)]), dim=-1)
    return VocabularyEmbedding(
        vocabulary.names,
        embeddings,
        float(encoder.logit_scale.exp()),
        category,
        None if encoder.logit_bias is None else float(encoder.logit_bias),
    )


def _embed(vocabulary: Vocabulary, encoder: TextEncoder, batch_size: int) -> Float[Tensor, "M D"]:
    """Returns the unit-norm embedding of each name, category by category."""
    names = list(chain.from_iterable(vocabulary.categories))
    for name in names:
        if not encoder.tokenizer.encode(name):  # within a prompt it would go unnoticed
            raise ValueError(f"vocabulary: {name!r} has nothing that the model's CLIP can read; use letters")
    if len(names) <= _FEW:
        embedded = [encoder([prompt.format(name) for prompt in PROMPTS for name in names]).cpu()]
    else:  # texts of one prompt begin alike, which the encoder computes once
        batches = [names[i : i + batch_size] for i in range(0, len(names), batch_size)]
        embedded = [encoder([prompt.format(n) for n in batch]).cpu() for prompt in PROMPTS for batch in batches]
    return F.normalize(torch.cat(embedded).unflatten(0, (len(PROMPTS), -1)).mean(0), dim=-1)
