"""Losses of training stage 1: proposal set loss, query margin loss and instance classification.

All of it is float32, under autocast too: costs and hinges are small differences of large sums.
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from openvis_model.training.config import SetCriterionConfig


def margin_loss(queries: Float[Tensor, "B N C"], margin: float) -> Float[Tensor, ""]:
    """Contrastive instance margin loss (OpenVIS, Eq. 2): keeps the instance queries of one frame apart.

    Mean over frames and ordered pairs i≠j of max(0, cos(Q^i, Q^j) - margin); 0 where there is no pair (N = 1).
    A zero query has no direction: its cosines count as 0 and it gets no gradient.
    """
    B, N, _ = queries.shape
    with torch.autocast(queries.device.type, enabled=False):
        queries = queries.float()
        length = queries.norm(dim=-1, keepdim=True)
        # Dividing by inf, not by a small epsilon, which would multiply the gradient of a zero query by 1/epsilon.
        directions = queries / length.masked_fill(length < 1e-6, inf)
        excess = F.relu(directions @ directions.mT - margin)
        return excess.triu(diagonal=1).sum() / max(B * N * (N - 1) / 2, 1)  # symmetric: i<j stands for i≠j


def classification_loss(
    instance_tokens: Float[Tensor, "M D"],
    vocabulary: Float[Tensor, "K D"],
    categories: Int[Tensor, "M"],
    logit_scale: float | Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Cross-entropy of softmax(logit_scale · I Eᵀ), the class probabilities of InstCLIP, mean over instances.

    Args:
        instance_tokens: I, unit norm, one row per matched instance.
        vocabulary: E, unit norm, one row per name.
        categories: row of E that names each instance.
        logit_scale: inverse temperature of CLIP (a factor, not its logarithm).

    Returns:
        The loss; without instances a 0 that still carries the graph, so that gradients are zeros, not None (for DDP).
    """
    with torch.autocast(instance_tokens.device.type, enabled=False):
        logits = logit_scale * (instance_tokens.float() @ vocabulary.float().T)
        return F.cross_entropy(logits, categories.long(), reduction="sum") / max(len(categories), 1)


class Match(NamedTuple):
    """The pairs of one frame, ordered by query: min(N, M) queries and the object that each one stands for."""

    query_index: Int[Tensor, "m"]
    object_index: Int[Tensor, "m"]


class SetLosses(NamedTuple):
    """`losses` "objectness", "mask" and "dice", weighted and summed over layers; `matches` per frame, last layer."""

    losses: dict[str, Tensor]
    matches: list[Match]


class SetCriterion:
    """Class-agnostic set loss of Mask2Former (Cheng et al. 2022, Sec. 3.3) on every decoder layer."""

    def __init__(self, config: SetCriterionConfig) -> None:
        self.config = config

    def __call__(
        self,
        mask_logits: Float[Tensor, "L B N h w"] | Sequence[Float[Tensor, "B N h w"]],
        objectness_logits: Float[Tensor, "L B N"] | Sequence[Float[Tensor, "B N"]],
        targets: Sequence[Bool[Tensor, "_ _ _"] | UInt8[Tensor, "_ _ _"]],
        *,
        generator: Generator | None = None,
        num_masks: float | None = None,
        presence_weight: float | None = None,
    ) -> SetLosses:
        """Match queries to objects on each layer, then score the pairs.

        Args:
            mask_logits: per decoder layer, the last one last.
            objectness_logits: log-odds of object against no object: their sigmoid is 1 - p(no object).
            targets: per frame its objects' masks [M, H, W], M ≥ 0, any resolution; objects beyond N stay unmatched.
            generator: source of the sampled points, on any device; None is torch's global one.
            num_masks: normaliser of "mask" and "dice", taken as 1 if less: ground-truth masks of a batch, averaged over
                data-parallel workers. None counts this batch alone.
            presence_weight: normaliser of "objectness", the sum of `presence_weight` over the same frames. None is that
                of this batch alone.

        Raises:
            ValueError: layers or frames differ in number, or training diverged (NaN or infinite logits or costs).
        """
        counts = len(mask_logits), len(objectness_logits), len(mask_logits[0]), len(targets)
        if counts[0] != counts[1] or counts[2] != counts[3]:
            raise ValueError("{} layers of masks but {} of objectness, or {} frames but {} targets".format(*counts))
        device = mask_logits[0].device
        masks = [target.to(device).bool().float() for target in targets]
        normaliser = max(sum(map(len, masks)) if num_masks is None else num_masks, 1)
        cfg, layers = self.config, []
        with torch.autocast(device.type, enabled=False):
            for layer_masks, layer_objectness in zip(mask_logits, objectness_logits, strict=True):
                logits, objectness = layer_masks.float(), layer_objectness.float()
                matches = [self.match(*frame, generator) for frame in zip(logits, objectness, masks, strict=True)]
                bce, dice = self._mask_losses(logits, masks, matches, generator) / normaliser
                presence = self._objectness_loss(objectness, matches, presence_weight)
                layers.append(torch.stack([cfg.class_weight * presence, cfg.mask_weight * bce, cfg.dice_weight * dice]))
        objectness_loss, mask_loss, dice_loss = torch.stack(layers).sum(dim=0)
        return SetLosses({"objectness": objectness_loss, "mask": mask_loss, "dice": dice_loss}, matches)

    def presence_weight(self, objects: int, queries: int) -> float:
        """Sum of the weights in the objectness loss of a frame."""
        matched = min(objects, queries)
        return matched + (queries - matched) * self.config.no_object_weight

    @torch.no_grad()
    def match(
        self,
        mask_logits: Float[Tensor, "N h w"],
        objectness_logits: Float[Tensor, "N"],
        targets: Float[Tensor, "M H W"],
        generator: Generator | None,
    ) -> Match:
        """Cheapest assignment of queries to the objects of one frame, on points that all pairs share."""
        cfg, device = self.config, mask_logits.device
        if not objectness_logits.isfinite().all():
            raise ValueError("objectness logits are NaN or infinite: training diverged, lower the learning rate")
        if len(targets) == 0:
            return Match(*torch.zeros(2, 0, dtype=torch.long, device=device))
        points = _random_points(1, cfg.num_points, device, generator)
        bce, dice = _pairwise_costs(_sample(mask_logits[None], points)[0], _sample(targets[None], points)[0])
        cost = cfg.mask_weight * bce + cfg.dice_weight * dice - cfg.class_weight * objectness_logits.sigmoid()[:, None]
        if not cost.isfinite().all():  # not objectness, which was checked above; any bad mask logit spoils bce
            raise ValueError("mask cost is NaN or infinite: training diverged, lower the learning rate")
        return Match(*(torch.as_tensor(index, device=device) for index in linear_sum_assignment(cost.cpu())))

    def _objectness_loss(
        self, logits: Float[Tensor, "B N"], matches: Sequence[Match], total_weight: float | None
    ) -> Float[Tensor, ""]:
        """Cross-entropy over {object, no object}, normalised by the sum of the targets' weights as Mask2Former's is."""
        is_object = torch.zeros_like(logits)
        for row, match in zip(is_object, matches, strict=True):
            row[match.query_index] = 1
        weight = torch.where(is_object.bool(), 1.0, self.config.no_object_weight)
        return F.binary_cross_entropy_with_logits(logits, is_object, weight, reduction="sum") / (
            weight.sum() if total_weight is None else total_weight
        )

    def _mask_losses(
        self,
        mask_logits: Float[Tensor, "B N h w"],
        targets: Sequence[Float[Tensor, "_ _ _"]],
        matches: Sequence[Match],
        generator: Generator | None,
    ) -> Float[Tensor, "2"]:
        """Binary cross-entropy and dice of the matched pairs, summed over pairs. Each pair has its own points."""
        maps = torch.cat([frame[match.query_index, None] for frame, match in zip(mask_logits, matches, strict=True)])
        points = self._hard_points(maps.detach(), generator)
        # Frames may differ in resolution, so each samples its own targets.
        frames = zip(targets, matches, points.split_with_sizes([len(match[0]) for match in matches]), strict=True)
        labels = torch.cat([_sample(masks[match.object_index, None], at) for masks, match, at in frames])[:, 0]
        logits = _sample(maps, points)[:, 0]
        bce = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=1)
        inside = logits.sigmoid()
        dice = 1 - (2 * (inside * labels).sum(dim=1) + 1) / (inside.sum(dim=1) + labels.sum(dim=1) + 1)
        return torch.stack([bce.sum(), dice.sum()])

    def _hard_points(self, logits: Float[Tensor, "R 1 h w"], generator: Generator | None) -> Float[Tensor, "R P 2"]:
        """Importance sampling (PointRend, Kirillov et al. 2020, Sec. 3.1): mostly where the logits are nearest to 0."""
        cfg, R = self.config, len(logits)
        candidates = _random_points(R, int(cfg.num_points * cfg.oversample_ratio), logits.device, generator)
        num_uncertain = int(cfg.num_points * cfg.importance_sample_ratio)
        chosen = _sample(logits, candidates)[:, 0].abs().topk(num_uncertain, dim=1, largest=False).indices
        uncertain = candidates.take_along_dim(chosen[..., None], dim=1)
        anywhere = _random_points(R, cfg.num_points - num_uncertain, logits.device, generator)
        return torch.cat([uncertain, anywhere], dim=1)


def _pairwise_costs(logits: Float[Tensor, "N P"], targets: Float[Tensor, "M P"]) -> Float[Tensor, "2 N M"]:
    """Binary cross-entropy (mean over the P points) and dice loss of every query with every object."""
    # BCE(x, t) = softplus(x) - x·t: one product for all pairs, where the usual two-sided form takes two.
    bce = F.softplus(logits).mean(dim=1)[:, None] - logits @ targets.T / logits.shape[1]
    inside = logits.sigmoid()
    dice = 1 - (2 * inside @ targets.T + 1) / (inside.sum(dim=1)[:, None] + targets.sum(dim=1) + 1)
    return torch.stack([bce, dice])


def _sample(maps: Float[Tensor, "R maps h w"], points: Float[Tensor, "R P 2"]) -> Float[Tensor, "R maps P"]:
    """Bilinear values at points (x, y) in [0, 1]²; as in Mask2Former they fade to 0 over the outermost half pixel."""
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False)[..., 0]


def _random_points(sets: int, count: int, device: torch.device, generator: Generator | None) -> Float[Tensor, "R P 2"]:
    """Uniform points (x, y) in [0, 1]²; drawn where the generator lives, so a seed means the same on any device."""
    return torch.rand(sets, count, 2, generator=generator, device=generator.device if generator else device).to(device)
