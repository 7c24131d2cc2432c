"""Embeds a vocabulary: names with CLIP's text tower (OpenVIS, Eq. 4), exemplars with its vision tower."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from openvis_model.calibration import calibrated, calibrated_alone
from openvis_model.exemplars import Exemplar, TrackExemplar
from openvis_model.picture_encoder import PictureEncoder
from openvis_model.reference_names import reference_names
from openvis_model.text_encoder import TextEncoder
from openvis_model.vocabulary import PROMPTS, Vocabulary, VocabularyEmbedding

ANYTHING = "photo"
"""The name that exemplars of a CLIP with the sigmoid loss are compared with if there is no other; prompts have it."""

_FEW = 4
"""Names up to which reading the weights once saves more time than computing beginnings once."""


@torch.no_grad()
def embed_vocabulary(
    vocabulary: Vocabulary,
    encoder: TextEncoder,
    pictures: Callable[[], PictureEncoder] | None = None,
    *,
    reference: bool = False,
    batch_size: int = 512,
) -> VocabularyEmbedding:
    """Embeds every name with every prompt of `PROMPTS`, and every exemplar.

    Averages over prompts and normalises. Then it averages over the synonyms or exemplars of a category and normalises
    again, unless the vocabulary scores a category by its best one. Exemplars among words are `calibrated`; those of a
    CLIP with the sigmoid loss always are, because its scores are absolute. Exemplars alone are `calibrated_alone` if
    they are compared with a reference, which does not change their probabilities.

    Args:
        vocabulary: the K categories; exemplars have been read.
        encoder: CLIP's text tower.
        pictures: loads what embeds pictures; called at most once, if there are pictures, or exemplars to calibrate.
            None for a vocabulary without exemplars.
        reference: whether to embed what `VocabularyEmbedding.unknown` compares with, too.
        batch_size: texts per forward pass.

    Raises:
        ValueError: for a name that the text tower cannot read (too long, without words, or with unknown ones), or an
            exemplar that was not read or that `PictureEncoder` refuses.
    """
    picture_encoder = cache(pictures or _without_exemplars)
    shown = vocabulary.exemplars or ((),) * len(vocabulary)
    named = [names for names, exemplars in zip(vocabulary.categories, shown, strict=True) if not exemplars]
    texts = iter(_embed(list(chain.from_iterable(named)), encoder, batch_size).split([len(names) for names in named]))
    groups = [embed_exemplars(exemplars, picture_encoder) if exemplars else next(texts) for exemplars in shown]
    category = None
    if vocabulary.synonyms == "best":
        category = torch.arange(len(groups)).repeat_interleave(torch.tensor([len(group) for group in groups]))
    else:
        groups = [F.normalize(group.mean(0, keepdim=True), dim=-1) for group in groups]
    embeddings, scale, offset = torch.cat(groups), float(encoder.logit_scale.exp()), None
    others, others_offset = _embed_reference(encoder) if reference else None, None
    if vocabulary.shown and (named or encoder.logit_bias is not None):
        is_shown = torch.cat([torch.full((len(group),), bool(each)) for group, each in zip(groups, shown, strict=True)])
        words = embeddings[~is_shown] if named else _embed([ANYTHING], encoder, batch_size)
        offset = torch.zeros(len(embeddings))
        objects = picture_encoder().reference()
        embeddings[is_shown], offset[is_shown] = calibrated(embeddings[is_shown], words, objects, scale)
    elif vocabulary.shown and others is not None:
        alone = calibrated_alone(embeddings, others, picture_encoder().reference(), scale)
        embeddings, offset, others, others_offset = alone
    bias = None if encoder.logit_bias is None else float(encoder.logit_bias)
    return VocabularyEmbedding(vocabulary.names, embeddings, scale, category, bias, offset, others, others_offset)


def embed_exemplars(exemplars: Sequence[Exemplar], pictures: Callable[[], PictureEncoder]) -> Float[Tensor, "n D"]:
    """Returns the unit-norm embeddings of exemplars that have been read; `pictures` is called only for pictures.

    Raises:
        ValueError: one was not read, or `PictureEncoder` refuses it.
    """
    rows = []
    for exemplar in exemplars:
        exemplar.digest  # noqa: B018 - raises if it was not read
        if isinstance(exemplar, TrackExemplar):
            rows.append(torch.tensor(exemplar.embedding))
        else:
            rows.append(pictures().embed(exemplar))
    return torch.stack(rows)


def _without_exemplars() -> PictureEncoder:
    raise ValueError("vocabulary: has exemplars, which need the model's vision tower; give what loads it")


def _embed_reference(encoder: TextEncoder) -> Float[Tensor, "R D"]:
    """Returns the unit-norm embeddings of the reference names, each in one prompt."""
    return F.normalize(encoder([PROMPTS[0].format(name) for name in reference_names(encoder.tokenizer)]).cpu(), dim=-1)


def _embed(names: list[str], encoder: TextEncoder, batch_size: int) -> Float[Tensor, "M D"]:
    """Returns the unit-norm embedding of each name."""
    if not names:
        return torch.empty(0, 0)
    for name in names:
        if not encoder.tokenizer.encode(name):  # within a prompt it would go unnoticed
            raise ValueError(f"vocabulary: {name!r} has nothing that the model's CLIP can read; use letters")
    if len(names) <= _FEW:
        embedded = [encoder([prompt.format(name) for prompt in PROMPTS for name in names]).cpu()]
    else:  # texts of one prompt begin alike, which the encoder computes once
        batches = [names[i : i + batch_size] for i in range(0, len(names), batch_size)]
        embedded = [encoder([prompt.format(n) for n in batch]).cpu() for prompt in PROMPTS for batch in batches]
    return F.normalize(torch.cat(embedded).unflatten(0, (len(PROMPTS), -1)).mean(0), dim=-1)
