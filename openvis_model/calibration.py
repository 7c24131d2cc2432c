"""Makes the scores of words and exemplars comparable."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


def calibrated(
    shown: Float[Tensor, "S D"], named: Float[Tensor, "M D"], reference: Float[Tensor, "R D"], logit_scale: float
) -> tuple[Float[Tensor, "S D"], Float[Tensor, "S"]]:
    """Returns rows and offsets with which exemplars compete with words in one softmax.

    In CLIP's space, images are much nearer to each other than to texts, so exemplars would always win. What CLIP learns
    is logit(I, t) ≈ log p(t | I) / p(t) up to a constant (InfoNCE), whose exponential has the same mean over all images
    I for every t. The same is asked of exemplars, with a reference in place of all images:

    - what images have in common, the reference's mean, is subtracted from each exemplar;
    - an offset raises or lowers the log-mean-exp of each exemplar over the reference to the mean of those of the words.

    The logits of words do not change. Nothing is fitted, and no label is needed.

    Args:
        shown: unit-norm embeddings of exemplars.
        named: unit-norm embeddings of words.
        reference: unit-norm embeddings of objects that are nothing in particular.
        logit_scale: CLIP's inverse temperature.
    """
    rows = shown - reference.mean(0)

    def level(embeddings: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
        return torch.logsumexp(logit_scale * reference @ embeddings.mT, 0)

    return rows, level(named).mean() - level(rows)


class Alone(NamedTuple):
    """Exemplars without words, and what is in no category.

    Attributes:
        rows: of the exemplars; softmax(logit_scale · I rowsᵀ) is that of the exemplars themselves.
        offset: added to the logits of each.
        others: names and objects that have nothing to do with the exemplars.
        others_offset: added to the logits of each.
    """

    rows: Float[Tensor, "S D"]
    offset: Float[Tensor, " S"]
    others: Float[Tensor, "O D"]
    others_offset: Float[Tensor, " O"]


def calibrated_alone(
    shown: Float[Tensor, "S D"], names: Float[Tensor, "M D"], objects: Float[Tensor, "R D"], logit_scale: float
) -> Alone:
    """Makes the logits of exemplars comparable with those of unrelated names and of unrelated objects.

    Both are `calibrated`. The exemplars get one offset, the mean of theirs: they compete with each other as before.

    Args:
        shown: unit-norm embeddings of exemplars.
        names: unit-norm embeddings of names of all kinds.
        objects: unit-norm embeddings of objects that are nothing in particular.
        logit_scale: CLIP's inverse temperature.
    """
    rows, offset = calibrated(shown, names, objects, logit_scale)
    others, others_offset = calibrated(objects, names, objects, logit_scale)
    return Alone(
        rows,
        offset.mean().expand(len(offset)),
        torch.cat([names, others]),
        torch.cat([torch.zeros(len(names)), others_offset]),
    )
