"""Query margin loss and instance classification, of training stage 1.

Both are computed in float32, even under autocast: hinges are small differences of large sums.
"""

from math import inf

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def margin_loss(queries: Float[Tensor, "B N C"], margin: float) -> Float[Tensor, ""]:
    """Computes the contrastive instance margin loss (OpenVIS, Eq. 2), which keeps the queries of a frame apart.

    It is the mean over frames and ordered pairs i≠j of max(0, cos(Q^i, Q^j) - margin); 0 if there is no pair (N = 1).
    A zero query has no direction: its cosines count as 0, and it gets no gradient.
    """
    B, N, _ = queries.shape
    with torch.autocast(queries.device.type, enabled=False):
        queries = queries.float()
        length = queries.norm(dim=-1, keepdim=True)
        # Division by inf: a small epsilon would multiply the gradient of a zero query by 1/epsilon.
        directions = queries / length.masked_fill(length < 1e-6, inf)
        excess = F.relu(directions @ directions.mT - margin)
        return excess.triu(diagonal=1).sum() / max(B * N * (N - 1) / 2, 1)  # symmetric: sums i<j only


def classification_loss(
    instance_tokens: Float[Tensor, "M D"],
    vocabulary: Float[Tensor, "K D"],
    categories: Int[Tensor, "M"],
    logit_scale: float | Float[Tensor, ""],
    rivals: Bool[Tensor, "M K"] | None = None,
    logit_bias: float | None = None,
) -> Float[Tensor, ""]:
    """Computes the mean cross-entropy of InstCLIP's class probabilities softmax(logit_scale · I Eᵀ) (OpenVIS, Eq. 4).

    With a bias, the probabilities are sigmoid(logit_scale · I Eᵀ + logit_bias), and the loss of an instance is the sum
    of the binary cross-entropies of its names, as SigLIP was trained (Zhai et al. 2023, Eq. 1).

    Args:
        instance_tokens: I, unit norm, one row per matched instance.
        vocabulary: E, unit norm, one row per name.
        categories: row of E of each instance's category.
        logit_scale: inverse temperature of CLIP (a factor, not its logarithm).
        rivals: the names that compete with each instance's own; None takes all of them.
        logit_bias: bias of a CLIP that was trained with the sigmoid loss.

    Returns:
        The loss. Without instances it is 0 and still carries the graph, so that gradients are zeros instead of None,
        as DDP requires.
    """
    with torch.autocast(instance_tokens.device.type, enabled=False):
        logits = logit_scale * (instance_tokens.float() @ vocabulary.float().T)
        own = F.one_hot(categories.long(), len(vocabulary)).bool()
        if logit_bias is not None:
            losses = F.softplus(torch.where(own, -1, 1) * (logits + logit_bias))
            loss = losses.sum() if rivals is None else losses.masked_select(rivals | own).sum()
        else:
            if rivals is not None:
                logits = logits.masked_fill(~(rivals | own), -inf)
            loss = F.cross_entropy(logits, categories.long(), reduction="sum")
        return loss / max(len(categories), 1)
