"""Losses of boxes, for proposal networks that decode around the boxes that they predict (Carion et al. 2020)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss


def box_losses(
    boxes: Float[Tensor, "B N 4"],
    masks: Sequence[Float[Tensor, "_ _ _"]],
    pairs: Sequence[tuple[Int[Tensor, " _"], Int[Tensor, " _"]]],
) -> Float[Tensor, "2"]:
    """Sums the L1 distance and 1 - generalised IoU over pairs of a query's box and an object's.

    Args:
        boxes: centre, width and height of each query's box, as parts of the frame's width and height.
        masks: per frame, the masks of its objects [M, H, W], none of them empty.
        pairs: per frame, queries and the object matched to each.
    """
    found = torch.cat([frame[queries] for frame, (queries, _) in zip(boxes, pairs, strict=True)])
    wanted = torch.cat([boxes_of(frame[objects]) for frame, (_, objects) in zip(masks, pairs, strict=True)])
    apart = (found - wanted).abs().sum()
    return torch.stack([apart, generalized_box_iou_loss(_corners(found), _corners(wanted), reduction="sum")])


def boxes_of(masks: Float[Tensor, "M H W"]) -> Float[Tensor, "M 4"]:
    """Returns centre, width and height of each mask's box, as parts of the frame's width and height."""
    sides = []
    for axis in (1, 2):  # columns, then rows
        length = masks.shape[3 - axis]
        edges = torch.arange(length, device=masks.device, dtype=torch.float32)
        shown = masks.amax(axis) > 0
        first = torch.where(shown, edges, length).amin(-1)
        last = torch.where(shown, edges + 1, 0).amax(-1)
        sides.append(((first + last) / 2 / length, (last - first) / length))
    (x, width), (y, height) = sides
    return torch.stack([x, y, width, height], dim=-1)


def _corners(boxes: Float[Tensor, "M 4"]) -> Float[Tensor, "M 4"]:
    centre, size = boxes.split(2, dim=-1)
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)
