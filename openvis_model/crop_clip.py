"""The paper's baseline (Table 5, line 1): N masked crops of a frame through plain CLIP, one image each."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.ops import roi_align

from openvis_model.clip_towers import guided_tower
from openvis_model.frames import to_pixels
from openvis_model.inst_clip import pixel_statistics
from openvis_model.working_size import working_size

CROPS_PER_BATCH = 16
"""Crops per forward pass of CLIP; bounds memory, and more are not faster."""


class CropClip(nn.Module):
    """A drop-in for `InstClip` that cuts out each instance and runs CLIP on the crop.

    A crop is the square around the mask's box, resized to the pictures that CLIP was trained with. Everything outside
    of the mask is CLIP's mean colour. Crops smaller than the square of CLIP's positions have those of its middle.

    Args:
        visual: the vision transformer of an `open_clip` model, of any kind that InstCLIP takes.
        short_side: working size of the frames before cropping, pixels.

    Raises:
        ValueError: for a vision transformer that `guided_tower` refuses.
    """

    visual: Any  # as open_clip has it

    def __init__(self, visual: nn.Module, *, short_side: int) -> None:
        super().__init__()
        self.tower = guided_tower(visual)
        self.visual = visual
        self.short_side = short_side
        self.size: int = getattr(visual, "picture_size", None) or self.visual.image_size[0]
        mean, std = pixel_statistics(visual)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.mean: Tensor
        self.std: Tensor

    @property
    def embedding_width(self) -> int:
        """D, the width of CLIP's joint embedding space."""
        return self.tower.embedding_width

    @property
    def num_queries(self) -> int:
        """Number of instance queries that tell a difference: all crops are embedded alike."""
        return 1

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width at which a frame of this size is seen, pixels."""
        return working_size(height, width, short_side=self.short_side, divisor=1)

    def forward(
        self, frames: Tensor, mask_logits: Float[Tensor, "B N h w"], query_index: Int[Tensor, "B N"]
    ) -> Float[Tensor, "B N D"]:
        """Returns one unit-norm embedding per mask.

        Args:
            frames: uint8 [B, H, W, 3], or what `to_pixels` made of them at `input_size`.
            mask_logits: the masks to embed, at any resolution, covering the frame.
            query_index: is ignored.
        """
        del query_index
        count = mask_logits.shape[1]
        # Crops are cut batch by batch: for many frames, all of them would not fit into memory.
        embeddings = [
            self.embed(self.crops(frames[t : t + 1], mask_logits[t : t + 1, i : i + CROPS_PER_BATCH]))
            for t in range(len(frames))
            for i in range(0, count, CROPS_PER_BATCH)
        ]
        if not embeddings:
            return mask_logits.new_zeros(len(frames), 0, self.embedding_width)
        tokens: Tensor = F.normalize(torch.cat(embeddings), dim=-1).unflatten(0, (len(frames), count))
        return tokens

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Returns no parameters: CLIP stays frozen."""
        return []

    def crops(self, frames: Tensor, mask_logits: Float[Tensor, "B N h w"]) -> Float[Tensor, "B*N 3 size size"]:
        """Returns normalised crops, zero (the mean colour) outside of the mask."""
        pixels = (to_pixels(frames, self.input_size) - self.mean) / self.std
        masks = F.interpolate(mask_logits.float(), size=pixels.shape[-2:], mode="bilinear") > 0
        frame_index = torch.arange(len(frames), device=pixels.device).repeat_interleave(masks.shape[1])
        boxes = torch.cat([frame_index[:, None].float(), square_boxes(masks.flatten(0, 1))], dim=1)
        crops = roi_align(pixels, boxes, self.size, sampling_ratio=2, aligned=True)
        mask_index = torch.arange(len(boxes), device=pixels.device)[:, None].float()
        mask_boxes = torch.cat([mask_index, boxes[:, 1:]], dim=1)
        inside = roi_align(masks.flatten(0, 1)[:, None].float(), mask_boxes, self.size, sampling_ratio=2, aligned=True)
        masked: Tensor = crops * (inside >= 0.5)
        return masked

    def embed(self, crops: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n D"]:
        """Embeds normalised crops with plain CLIP, before normalisation."""
        patches, grid = self.size // self.tower.patch_size, self.tower.positions
        first = [(side - patches) // 2 for side in grid.shape[:2]]
        embeddings: Tensor
        if not any(first):
            embeddings = self.visual(crops)
            return embeddings
        middle = grid[first[0] : first[0] + patches, first[1] : first[1] + patches].flatten(0, 1)
        positions = torch.cat([self.visual.positional_embedding[:1], middle])
        embeddings = functional_call(self.visual, {"positional_embedding": positions}, (crops,))
        return embeddings


def square_boxes(masks: Bool[Tensor, "n H W"]) -> Float[Tensor, "n 4"]:
    """Returns the smallest square (x0, y0, x1, y1) around each mask, centred on its box, pixels.

    An empty mask gives a square around the whole frame.
    """
    edges = []
    for axis_used in (masks.any(1), masks.any(2)):  # columns, then rows
        length = axis_used.shape[1]
        used = axis_used.float()
        start = used.argmax(1).float()
        stop = length - used.flip(1).argmax(1).float()
        edges.append((start, stop))
    (x0, x1), (y0, y1) = edges
    half = torch.maximum(x1 - x0, y1 - y0) / 2
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    return torch.stack([cx - half, cy - half, cx + half, cy + half], dim=1)
