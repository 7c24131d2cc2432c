"""Open-world mask proposal: Mask2Former without classes (OpenVIS, Fig. 2a, Eq. 1)."""

import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from openvis_model.frames import to_pixels
from openvis_model.options import SIZE_DIVISOR
from openvis_model.proposals import IMAGENET_MEAN, IMAGENET_STD, Proposals, collapse

# This logger's only message says that a ResNet backbone "may not be compatible"; our tests show that it is.
logging.getLogger("transformers.models.mask2former.configuration_mask2former").setLevel(logging.ERROR)


@dataclass(frozen=True, kw_only=True)
class MaskProposalConfig:
    """Architecture of the mask proposal network.

    Attributes:
        mask2former: a `transformers` Mask2FormerConfig as plain values, backbone included.
        freeze_batch_norm: whether batch norm keeps its pretrained statistics and scales, as Mask2Former's ResNet does.
    """

    mask2former: dict[str, Any] = field(default_factory=dict)
    freeze_batch_norm: bool = True

    def build(self) -> Mask2FormerConfig:
        """Returns the `transformers` config.

        Raises:
            ValueError: if dropout is not 0: Mask2Former's decoder would also skip whole layers.
        """
        config = Mask2FormerConfig.from_dict(self.mask2former)
        if config.dropout:
            raise ValueError(f"mask2former.dropout: expected 0, got {config.dropout}; it would skip decoder layers")
        return config

    @property
    def num_queries(self) -> int:
        """N, the number of instance queries."""
        return int(self.build().num_queries)


class MaskProposalNetwork(nn.Module):
    """M_t, Q_t = Ψ(Φ(F_t), Q_0): N proposals for every frame, independently of other frames (OpenVIS, Eq. 1).

    Closed-set checkpoints work unchanged: class logits are collapsed to object against no object.

    Args:
        config: the architecture.
        short_side: working size of the frames, pixels.
        mask2former: a network to use instead of one with random weights.
    """

    def __init__(
        self,
        config: MaskProposalConfig,
        *,
        short_side: int,
        mask2former: Mask2FormerForUniversalSegmentation | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.short_side = short_side
        self.mask2former = mask2former or Mask2FormerForUniversalSegmentation(config.build())
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, frames: Tensor) -> Proposals:
        """Returns the proposals of the last decoder layer for frames uint8 [T, H, W, 3].

        Raises:
            ValueError: for frames that `check_frames` refuses.
        """
        return self.layers(frames)[-1]

    def layers(self, frames: Tensor) -> list[Proposals]:
        """Returns the proposals after every decoder layer, the initial queries first, for deep supervision.

        Raises:
            ValueError: for frames that `check_frames` refuses.
        """
        pixels = (to_pixels(frames, short_side=self.short_side, divisor=SIZE_DIVISOR) - self.mean) / self.std
        output = self.mask2former.model(pixels, output_hidden_states=True)
        queries = [state.transpose(0, 1) for state in output.transformer_decoder_intermediate_states]
        return [
            Proposals(mask_logits, layer, collapse(self.mask2former.class_predictor(layer)))
            for mask_logits, layer in zip(output.masks_queries_logits, queries, strict=True)
        ]

    def train(self, mode: bool = True) -> "MaskProposalNetwork":
        """Switches to training or evaluation; frozen batch norms always keep their statistics."""
        super().train(mode)
        for norm in self._frozen_batch_norms():
            norm.eval()
        return self

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Returns all parameters except frozen batch norms and Swin's last norm, which feature maps bypass."""
        frozen = {parameter for norm in self._frozen_batch_norms() for parameter in norm.parameters()}
        frozen |= {parameter for name, parameter in self.named_parameters() if ".encoder.swin.layernorm." in name}
        return [parameter for parameter in self.parameters() if parameter not in frozen]

    def _frozen_batch_norms(self) -> list[nn.Module]:
        return [m for m in self.modules() if isinstance(m, nn.BatchNorm2d) and self.config.freeze_batch_norm]
