"""Embeds a vocabulary with CLIP's text tower (OpenVIS, Eq. 4)."""

import hashlib
import json
import uuid
from itertools import chain
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from openvis_model.clip import TextEncoder
from openvis_model.fingerprint import tensor_fingerprint
from openvis_model.vocabulary import PROMPTS, Vocabulary, VocabularyEmbedding


@torch.no_grad()
def embed_vocabulary(
    vocabulary: Vocabulary, encoder: TextEncoder, *, batch_size: int = 512, cache: str | Path | None = None
) -> VocabularyEmbedding:
    """Embeds every name with every prompt of `PROMPTS`.

    Averages over prompts, normalises, averages over the synonyms of a category, and normalises again.

    Args:
        vocabulary: the K categories.
        encoder: CLIP's text tower.
        batch_size: texts per forward pass.
        cache: folder that keeps embeddings between runs, keyed by the content of text tower, prompts and names. A
            damaged file is replaced.

    Raises:
        ValueError: for a name that the text tower cannot read (too long, without words, or with unknown ones).
    """
    file = Path(cache) / f"vocabulary-{_content_key(vocabulary, encoder)}.safetensors" if cache else None
    embeddings = _read_embeddings(file) if file else None
    if embeddings is None:
        embeddings = _embed(vocabulary, encoder, batch_size)
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{uuid.uuid4().hex}.partial")
            save_file({"embeddings": embeddings}, partial)
            partial.replace(file)
    return VocabularyEmbedding(vocabulary.names, embeddings, float(encoder.logit_scale.exp()))


def _read_embeddings(file: Path) -> Float[Tensor, "K D"] | None:
    try:
        with safe_open(file, framework="pt") as stored:
            embeddings: Tensor = stored.get_tensor("embeddings")
            return embeddings
    except (OSError, SafetensorError):  # missing or damaged
        return None


def _embed(vocabulary: Vocabulary, encoder: TextEncoder, batch_size: int) -> Float[Tensor, "K D"]:
    names = list(chain.from_iterable(vocabulary.categories))
    for name in names:
        encoder.tokenizer.encode(name)  # refuses a name without words; within a prompt it would go unnoticed
    texts = [prompt.format(name) for name in names for prompt in PROMPTS]
    embedded = torch.cat([encoder(texts[i : i + batch_size]).cpu() for i in range(0, len(texts), batch_size)])
    per_name = F.normalize(embedded.unflatten(0, (len(names), len(PROMPTS))).mean(1), dim=-1)
    per_category = [group.mean(0) for group in per_name.split([len(names) for names in vocabulary.categories])]
    return F.normalize(torch.stack(per_category), dim=-1)


def _content_key(vocabulary: Vocabulary, encoder: TextEncoder) -> str:
    content = json.dumps([tensor_fingerprint(encoder.state_dict()), encoder.identity, PROMPTS, vocabulary.categories])
    return hashlib.sha256(content.encode()).hexdigest()[:32]
