"""The model's output for one frame, and the tracking tokens made from it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from openvis_model.options import TokenKind
from openvis_model.rle import RleMasks


@dataclass(frozen=True)
class Instances:
    """The n instances of one frame, all on the CPU.

    Attributes:
        objectness: probability that the proposal is an object.
        instance_tokens: I_t, unit-norm embeddings in CLIP's space.
        queries: Q_t, instance queries of the mask proposal network.
        query_index: which of the N queries each instance comes from.
        colours: mean RGB of what each mask shows, 0 to 255.
        masks: masks, boxes and areas at the size of the video's frames, pixels.
    """

    objectness: Float[Tensor, " n"]
    instance_tokens: Float[Tensor, "n D"]
    queries: Float[Tensor, "n C"]
    query_index: Int[Tensor, " n"]
    colours: Float[Tensor, "n 3"]
    masks: RleMasks

    def __len__(self) -> int:
        return len(self.objectness)

    def tracking_tokens(self, kind: TokenKind) -> Float[Tensor, "n E"]:
        """Returns the tracking tokens of these instances, made by the function `tracking_tokens`."""
        return tracking_tokens(self.instance_tokens, self.queries, kind)

    @property
    def boxes(self) -> Float[Tensor, "n 4"]:
        """Boxes of the masks, (x, y, width, height) in pixels."""
        return torch.as_tensor(self.masks.boxes, dtype=torch.float32)


def tracking_tokens(
    instance_tokens: Float[Tensor, "*n D"], queries: Float[Tensor, "*n C"], kind: TokenKind
) -> Float[Tensor, "*n E"]:
    """Returns T_t = concat(I_t, Q_t) (OpenVIS, Universal Rollout Association); `query` leaves I_t out.

    Each half has unit norm, so that neither width dominates. E is D + C, or C for `query`.
    """
    unit_queries = F.normalize(queries, dim=-1)
    if kind == "query":
        return unit_queries
    return torch.cat([F.normalize(instance_tokens, dim=-1), unit_queries], dim=-1)
