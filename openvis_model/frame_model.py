"""Frames in, instances out: what the trained model and the one for inference have in common."""

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openvis_model.colours import mean_colours
from openvis_model.frames import check_frames, to_pixels
from openvis_model.instances import Instances
from openvis_model.proposals import Proposals
from openvis_model.rle import encode_logits
from openvis_model.rollout_tracker import RolloutTracker
from openvis_model.text_encoder import TextEncoder


class FrameModel(nn.Module):
    """Finds, segments and embeds instances; `VideoTracker` links them with the model's rollout tracker.

    Attributes:
        mask_proposal: frames to `Proposals`.
        classifier: frames, mask logits [T, n, h, w] and query indices [T, n] to instance tokens [T, n, D]; its
            `embedding_width` is D. Each of both takes frames also as `to_pixels` makes them at its `input_size`.
        text_encoder: embeds names.
        rollout_tracker: predicts tracking tokens.
        short_side: shorter side of the frames as the networks see them, pixels.
    """

    mask_proposal: nn.Module
    classifier: nn.Module
    text_encoder: TextEncoder
    rollout_tracker: RolloutTracker
    short_side: int

    @abstractmethod
    def identity(self) -> str:
        """Returns a text that differs for models that give different results."""

    @torch.inference_mode()
    def forward(
        self, frames: Tensor, *, objectness_floor: float = 0.0, frame_size: tuple[int, int] | None = None
    ) -> list[Instances]:
        """Finds, segments and embeds the instances of each frame.

        Args:
            frames: uint8 [T, H, W, 3] on any device; each frame is processed on its own.
            objectness_floor: drops proposals with a lower objectness; 0 keeps all N, as benchmark runs do.
            frame_size: (height, width) of the masks, pixels, if decoding has resized the frames.

        Returns:
            One `Instances` per frame, in the order of the queries; a frame without objects gives an empty one.

        Raises:
            ValueError: for frames that `check_frames` refuses, a floor that is not a probability, an invalid size, a
                model in training mode, or NaN in the output.
        """
        check_frames(frames)
        size = frame_size or (frames.shape[1], frames.shape[2])
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise ValueError(f"frame_size: expected (height, width) in pixels, two positive ints, got {frame_size}")
        if not 0 <= objectness_floor <= 1:
            raise ValueError(f"objectness_floor: expected a probability, got {objectness_floor}")
        if self.training:
            raise ValueError("model: is in training mode, where results are random; call eval() first")
        device = next(self.mask_proposal.buffers()).device
        frames = frames.to(device)
        network: Any = self.mask_proposal
        pixels = to_pixels(frames, network.input_size)
        proposals = network(pixels)
        # What is kept is decided on the CPU: this is the only wait for the device before the masks are encoded.
        objectness = _finite("objectness", proposals.objectness.float().cpu())
        kept = objectness >= objectness_floor
        places = kept.nonzero()
        tokens = self._instance_tokens(self._for_classifier(frames, pixels), proposals, kept)
        chosen = places.to(device, non_blocking=True).unbind(1)
        queries = proposals.queries[chosen]

        counts, mask_logits = kept.sum(1).tolist(), proposals.mask_logits[chosen]
        colours = mean_colours(pixels, mask_logits, counts)
        masks = encode_logits(mask_logits, size)
        tokens, queries, colours = (column.float().cpu() for column in (tokens, queries, colours))
        columns = (objectness[kept], _finite("instance tokens", tokens), queries, places[:, 1], colours)
        # Clones: a view would be pickled with the memory of the whole batch.
        split = ([part.clone() for part in column.split(counts)] for column in columns)
        return [Instances(*row) for row in zip(*split, masks.split(counts), strict=True)]

    def _for_classifier(self, frames: Tensor, pixels: Float[Tensor, "T 3 h w"]) -> Tensor:
        """Returns the pixels that proposals were made from if the classifier sees frames at the same size."""
        network: Any = self.classifier
        return pixels if network.input_size(frames.shape[1], frames.shape[2]) == pixels.shape[-2:] else frames

    def _instance_tokens(
        self, frames: Tensor, proposals: Proposals, kept: Bool[Tensor, "T N"]
    ) -> Float[Tensor, "instances D"]:
        """Embeds the kept proposals, frame by frame in the order of the queries; skips frames without any."""
        shown = kept.any(1).nonzero()[:, 0]
        if not len(shown):
            width: Any = self.classifier.embedding_width
            return proposals.queries.new_zeros(0, width)
        query_index, valid = compact(kept[shown])
        shown, query_index, places = (
            index.to(frames.device, non_blocking=True)
            for index in (shown, query_index, valid.flatten().nonzero()[:, 0])
        )
        tokens: Tensor = self.classifier(frames[shown], proposals.mask_logits[shown[:, None], query_index], query_index)
        return tokens.flatten(0, 1)[places]


def _finite(name: str, values: Tensor) -> Tensor:
    if not values.isfinite().all():
        raise ValueError(
            f"model: its {name} are NaN: the weights contain NaN, or overflow in this precision; use another "
            "checkpoint, or float32"
        )
    return values


def compact(kept: Bool[Tensor, "T N"]) -> tuple[Int[Tensor, "T n"], Bool[Tensor, "T n"]]:
    """Returns the indices of the kept entries of each row, moved to the front in order, and which are not padding.

    n is the largest number of entries kept in a row.
    """
    most = int(kept.sum(1).max())
    order = (~kept).byte().argsort(dim=1, stable=True)[:, :most]
    return order, kept.gather(1, order)
