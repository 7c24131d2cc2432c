"""Embeds pictures as the objects of videos are embedded."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openvis_model.dead_leaves import PICTURES, dead_leaves
from openvis_model.exemplars import PictureExemplar
from openvis_model.options import SIZE_DIVISOR
from openvis_model.working_size import working_size

_STRIDE = 4  # of the masks, pixels of the working size, as that of proposals
_SURE = 1e-4  # smallest share of a pixel that is not zero; its logit is -9


class PictureEncoder:
    """The part of a model that embeds instances, for pictures whose masks are known.

    Args:
        classifier: frames, mask logits and query indices to instance tokens, as in `FrameModel`.
        short_side: working size of the frames, pixels.
    """

    def __init__(self, classifier: nn.Module, *, short_side: int) -> None:
        self.classifier: Any = classifier
        self.short_side = short_side

    @torch.inference_mode()
    def embed(self, exemplar: PictureExemplar) -> Float[Tensor, " D"]:
        """Returns the unit-norm embedding of what a picture's mask shows.

        A mask belongs to no query, so it is embedded with the instance token of each, and the mean is taken.

        Raises:
            ValueError: the picture has changed since it was checked, or its mask covers less than a pixel of what the
                model sees.
        """
        assert exemplar.content is not None, "read_pictures comes first"
        content = exemplar.content.load()
        pixels, coverage = content.pixels, content.coverage
        height, width = pixels.shape[:2]
        shares = torch.ones(height, width) if coverage is None else torch.tensor(coverage) / 255
        masks = self._masks(shares[None])
        if masks.max() < 0:
            raise ValueError(
                f"{exemplar.place}: {exemplar}: the object is too small for the model, which sees the picture with "
                f"{self.short_side} pixels on its shorter side; crop the picture"
            )
        queries = torch.arange(self.classifier.num_queries)
        tokens = self._embed(torch.tensor(pixels), masks.expand(len(queries), -1, -1), queries)
        return F.normalize(tokens.mean(0), dim=-1)

    @torch.inference_mode()
    def reference(self) -> Float[Tensor, "R D"]:
        """Returns the unit-norm embeddings of objects that are nothing in particular; the same for the same model."""
        height, width = working_size(3, 4, short_side=self.short_side, divisor=SIZE_DIVISOR)
        embedded = []
        for index in range(PICTURES):
            picture, masks = dead_leaves(index, height, width)
            queries = torch.arange(len(masks)) % self.classifier.num_queries
            embedded.append(self._embed(torch.from_numpy(picture), self._masks(torch.from_numpy(masks)), queries))
        return torch.cat(embedded)

    def _masks(self, shares: Tensor) -> Float[Tensor, "N h w"]:
        """Returns mask logits of shares [N, H, W], at the resolution of proposals."""
        height, width = working_size(*shares.shape[1:], short_side=self.short_side, divisor=SIZE_DIVISOR)
        grid = (height // _STRIDE, width // _STRIDE)
        return F.adaptive_avg_pool2d(shares[None].float(), grid)[0].clamp(_SURE, 1 - _SURE).logit()

    def _embed(self, pixels: Tensor, masks: Float[Tensor, "N h w"], queries: Tensor) -> Float[Tensor, "N D"]:
        device = next(self.classifier.buffers()).device
        tokens: Tensor = self.classifier(pixels[None].to(device), masks[None].to(device), queries[None].to(device))[0]
        if not tokens.isfinite().all():
            raise ValueError("model: its instance tokens are NaN: the weights contain NaN; use another checkpoint")
        return tokens.float().cpu()
