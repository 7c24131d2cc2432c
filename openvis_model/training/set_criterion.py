"""The loss of mask proposals, of training stage 1.

Everything is computed in float32, even under autocast: costs are small differences of large sums.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from scipy.optimize import linear_sum_assignment
from torch import Generator, Tensor

from openvis_model.training.box_loss import box_losses
from openvis_model.training.config import SetCriterionConfig


class Match(NamedTuple):
    """The pairs of one frame, ordered by query: min(N, M) queries and the object matched to each."""

    query_index: Int[Tensor, "m"]
    object_index: Int[Tensor, "m"]


class SetLosses(NamedTuple):
    """`losses` "objectness", "mask" and "dice", weighted and summed over layers; `matches` per frame, last layer.

    Of networks with boxes, `losses` has "box", too.
    """

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
        boxes: Sequence[Float[Tensor, "B N 4"]] | None = None,
        generator: Generator | None = None,
        num_masks: float | None = None,
        presence_weight: float | None = None,
        exhaustive: bool = True,
        objects: Sequence[Int[Tensor, " _"]] | None = None,
    ) -> SetLosses:
        """Matches queries to objects on each layer, then computes the losses of the pairs.

        Args:
            mask_logits: logits of each decoder layer, the last layer last.
            objectness_logits: log-odds of object against no object; their sigmoid is 1 - p(no object).
            targets: per frame, the masks of its objects [M, H, W], M ≥ 0, at any resolution. Of more than N objects,
                M - N stay unmatched.
            boxes: boxes of each decoder layer: centre, width and height, as parts of the frame. They do not take part
                in matching.
            generator: source of the sampled points, on any device; None uses torch's global generator.
            num_masks: normaliser of "mask", "dice" and "box", more than 0: the ground-truth masks that the loss is
                averaged over, or a worker's part of them. None counts those in `targets`.
            presence_weight: normaliser of "objectness": the sum of the method `presence_weight` over the frames that
                the loss is averaged over. None sums over the frames in `targets`.
            exhaustive: whether `targets` are all objects of these frames; unmatched queries weigh less if not.
            objects: per frame, which object of the clip each target is: then the frames are matched together, and an
                object has one query in all of them. None matches every frame on its own.

        Raises:
            ValueError: if numbers of layers or frames differ, or training has diverged (NaN or infinite logits or
                costs).
        """
        counts = len(mask_logits), len(objectness_logits), len(mask_logits[0]), len(targets)
        if counts[0] != counts[1] or counts[2] != counts[3]:
            raise ValueError("{} layers of masks but {} of objectness, or {} frames but {} targets".format(*counts))
        device = mask_logits[0].device
        masks = [target.to(device).bool().float() for target in targets]
        normaliser = max(sum(map(len, masks)), 1) if num_masks is None else num_masks
        cfg, layers, box = self.config, [], masks[0].new_zeros(())
        with torch.autocast(device.type, enabled=False):
            for number, (layer_masks, layer_objectness) in enumerate(zip(mask_logits, objectness_logits, strict=True)):
                logits, objectness = layer_masks.float(), layer_objectness.float()
                costs = [self._costs(*frame, generator) for frame in zip(logits, objectness, masks, strict=True)]
                matches = [_cheapest(cost) for cost in costs] if objects is None else _cheapest_of_clip(costs, objects)
                bce, dice = self._mask_losses(logits, masks, matches, generator) / normaliser
                presence = self._objectness_loss(objectness, matches, presence_weight, exhaustive)
                layers.append(torch.stack([cfg.class_weight * presence, cfg.mask_weight * bce, cfg.dice_weight * dice]))
                if boxes is not None:
                    apart, giou = box_losses(boxes[number].float(), masks, matches) / normaliser
                    box = box + cfg.box_weight * apart + cfg.giou_weight * giou
        losses = dict(zip(("objectness", "mask", "dice"), torch.stack(layers).sum(dim=0), strict=True))
        return SetLosses(losses if boxes is None else losses | {"box": box}, matches)

    def presence_weight(self, objects: int, queries: int, *, exhaustive: bool = True) -> float:
        """Returns the sum of the objectness weights of a frame with this many objects and queries."""
        matched = min(objects, queries)
        return matched + (queries - matched) * self._unmatched_weight(exhaustive)

    def _unmatched_weight(self, exhaustive: bool) -> float:
        return self.config.no_object_weight if exhaustive else self.config.unknown_weight

    @torch.no_grad()
    def match(
        self,
        mask_logits: Float[Tensor, "N h w"],
        objectness_logits: Float[Tensor, "N"],
        targets: Float[Tensor, "M H W"],
        generator: Generator | None,
    ) -> Match:
        """Finds the cheapest assignment of queries to the objects of one frame, on points that all pairs share.

        Raises:
            ValueError: if training has diverged (NaN or infinite logits or costs).
        """
        return _cheapest(self._costs(mask_logits, objectness_logits, targets, generator))

    @torch.no_grad()
    def _costs(
        self,
        mask_logits: Float[Tensor, "N h w"],
        objectness_logits: Float[Tensor, "N"],
        targets: Float[Tensor, "M H W"],
        generator: Generator | None,
    ) -> Float[Tensor, "N M"]:
        """Computes the cost of each query for each object of one frame, on points that all pairs share."""
        cfg, device = self.config, mask_logits.device
        if not objectness_logits.isfinite().all():
            raise ValueError("objectness logits are NaN or infinite: training diverged, lower the learning rate")
        if len(targets) == 0:
            return objectness_logits.new_zeros(len(objectness_logits), 0)
        points = _random_points(1, cfg.num_points, device, generator)
        bce, dice = _pairwise_costs(_sample(mask_logits[None], points)[0], _sample(targets[None], points)[0])
        cost: Tensor = (
            cfg.mask_weight * bce + cfg.dice_weight * dice - cfg.class_weight * objectness_logits.sigmoid()[:, None]
        )
        if not cost.isfinite().all():  # objectness is finite here, so a mask logit is to blame
            raise ValueError("mask cost is NaN or infinite: training diverged, lower the learning rate")
        return cost

    def _objectness_loss(
        self, logits: Float[Tensor, "B N"], matches: Sequence[Match], total_weight: float | None, exhaustive: bool
    ) -> Float[Tensor, ""]:
        """Computes the cross-entropy over {object, no object}, divided by the sum of weights as in Mask2Former."""
        is_object = torch.zeros_like(logits)
        for row, match in zip(is_object, matches, strict=True):
            row[match.query_index] = 1
        weight = torch.where(is_object.bool(), 1.0, self._unmatched_weight(exhaustive))
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
        """Sums binary cross-entropy and dice over the matched pairs; each pair has its own points."""
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
        """Samples points mostly where logits are near 0 (PointRend, Kirillov et al. 2020, Sec. 3.1)."""
        cfg, R = self.config, len(logits)
        candidates = _random_points(R, int(cfg.num_points * cfg.oversample_ratio), logits.device, generator)
        num_uncertain = int(cfg.num_points * cfg.importance_sample_ratio)
        chosen = _sample(logits, candidates)[:, 0].abs().topk(num_uncertain, dim=1, largest=False).indices
        uncertain = candidates.take_along_dim(chosen[..., None], dim=1)
        anywhere = _random_points(R, cfg.num_points - num_uncertain, logits.device, generator)
        return torch.cat([uncertain, anywhere], dim=1)


def _cheapest(cost: Float[Tensor, "N M"]) -> Match:
    return Match(*(torch.as_tensor(index, device=cost.device) for index in linear_sum_assignment(cost.cpu())))


def _cheapest_of_clip(costs: Sequence[Float[Tensor, "N _"]], objects: Sequence[Int[Tensor, " _"]]) -> list[Match]:
    """Assigns one query to each object for all frames that show it; a frame's match is its part of the assignment."""
    count = 1 + max((int(frame.max()) for frame in objects if len(frame)), default=-1)
    total = costs[0].new_zeros(len(costs[0]), count)
    objects = [frame.to(total.device) for frame in objects]
    for cost, frame in zip(costs, objects, strict=True):
        total.index_add_(1, frame, cost)
    clip = _cheapest(total)
    query_of = torch.full((count,), -1, device=total.device).index_copy(0, clip.object_index, clip.query_index)
    matches = []
    for frame in objects:
        queries = query_of[frame]
        matched = (queries >= 0).nonzero()[:, 0]
        order = matched[queries[matched].argsort()]
        matches.append(Match(queries[order], order))
    return matches


def _pairwise_costs(logits: Float[Tensor, "N P"], targets: Float[Tensor, "M P"]) -> Float[Tensor, "2 N M"]:
    """Computes binary cross-entropy (mean over the P points) and dice loss of every query with every object."""
    # BCE(x, t) = softplus(x) - x·t needs one matrix product for all pairs; the usual two-sided form needs two.
    bce = F.softplus(logits).mean(dim=1)[:, None] - logits @ targets.T / logits.shape[1]
    inside = logits.sigmoid()
    dice = 1 - (2 * inside @ targets.T + 1) / (inside.sum(dim=1)[:, None] + targets.sum(dim=1) + 1)
    return torch.stack([bce, dice])


def _sample(maps: Float[Tensor, "R maps h w"], points: Float[Tensor, "R P 2"]) -> Float[Tensor, "R maps P"]:
    """Samples bilinearly at points (x, y) in [0, 1]²; values fade to 0 over the outermost half pixel (Mask2Former)."""
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, align_corners=False)[..., 0]


def _random_points(sets: int, count: int, device: torch.device, generator: Generator | None) -> Float[Tensor, "R P 2"]:
    """Draws uniform points (x, y) in [0, 1]², on the generator's device: the points do not depend on `device`."""
    return torch.rand(sets, count, 2, generator=generator, device=generator.device if generator else device).to(device)
