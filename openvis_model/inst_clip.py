"""InstCLIP: embeds every instance of a frame in one forward pass of CLIP (OpenVIS, Fig. 2b, Eq. 3).

The token sequence of a frame is [P patches, register, N instance tokens]. Patches and register never attend to instance
tokens, so Eq. 3 is computed as two exact streams instead of one dense (1+N+P)² mask: patches and register attend to
each other as in plain CLIP, and each instance token attends to the guided patches and to itself.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from openvis_model.clip_towers import guided_tower
from openvis_model.frames import to_pixels
from openvis_model.guidance import instance_guidance
from openvis_model.options import LORA_TARGETS, InstClipConfig
from openvis_model.working_size import working_size


class InstClip(nn.Module):
    """CLIP's vision transformer with instance tokens, a register and LoRA adapters.

    Instance tokens and register are initialised as copies of CLIP's class token (`GuidedTower` says what takes its
    place in other kinds of CLIP), and adapters as zero. Then the register's embedding equals CLIP's image embedding,
    and so does that of an instance token with zero guidance.

    Args:
        config: guidance, register, adapters.
        visual: the vision transformer of an `open_clip` model; it is modified in place and must not be used elsewhere.
        num_queries: N, one instance token per instance query of the mask proposal network.
        short_side: working size of the frames, pixels.

    Raises:
        ValueError: for a vision transformer that `guided_tower` refuses, or parts that its masks cannot guide.
    """

    visual: Any  # as open_clip has it
    instance_tokens: nn.Parameter

    def __init__(self, config: InstClipConfig, visual: nn.Module, *, num_queries: int, short_side: int) -> None:
        super().__init__()
        self.tower = guided_tower(visual)
        if config.guided not in (None, *self.tower.guidable):
            raise ValueError(
                f"inst_clip.guided: got {config.guided!r}, but masks can guide {' or '.join(self.tower.guidable)} of "
                "this CLIP; leave it out"
            )
        self.visual = visual
        self.config = config
        self.short_side = short_side
        self.patch_size = self.tower.patch_size
        self.tower.split_attention()
        starts = self.tower.starts(config.guided or self.tower.guidable[0])
        for name, start in starts.items():
            self.register_parameter(name, nn.Parameter(start.detach().repeat(num_queries, 1)))
        self.token_names = tuple(starts)
        class_token = self.tower.class_token if config.register else None
        self.register_token = None if class_token is None else nn.Parameter(class_token.detach()[None].clone())
        mean, std = pixel_statistics(visual)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.mean: Tensor
        self.std: Tensor

        lora = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules=list(LORA_TARGETS))
        inject_adapter_in_model(lora, self.visual)

    @property
    def embedding_width(self) -> int:
        """D, the width of CLIP's joint embedding space."""
        return self.tower.embedding_width

    @property
    def num_queries(self) -> int:
        """N, the number of instance queries, each of which has its own instance token."""
        return len(getattr(self, self.token_names[0]))

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the height and width at which a frame of this size is seen, pixels."""
        return working_size(height, width, short_side=self.short_side, divisor=self.patch_size)

    def forward(
        self, frames: Tensor, mask_logits: Float[Tensor, "B N h w"], query_index: Int[Tensor, "B N"]
    ) -> Float[Tensor, "B N D"]:
        """Embeds instances: one unit-norm instance token for each mask.

        Instance tokens do not attend to each other, so a result does not depend on the other masks.

        Args:
            frames: uint8 [B, H, W, 3], or what `to_pixels` made of them at `input_size`.
            mask_logits: the masks to embed, at any resolution, covering the frame.
            query_index: the instance query of each mask, which selects its learnable instance token.

        Raises:
            ValueError: for frames that `check_frames` refuses.
        """
        return F.normalize(self.encode(frames, mask_logits, query_index)[0], dim=-1)

    def encode(
        self, frames: Tensor, mask_logits: Float[Tensor, "B N h w"], query_index: Int[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B R D"]]:
        """Returns instances and register in CLIP's space, before normalisation.

        R is 1 with a register and 0 without.
        """
        pixels = (to_pixels(frames, self.input_size) - self.mean) / self.std
        grid = (pixels.shape[2] // self.patch_size, pixels.shape[3] // self.patch_size)
        guidance = instance_guidance(
            mask_logits, grid, guidance=self.config.guidance, resampling=self.config.resampling
        )
        instances = {name: getattr(self, name)[query_index] for name in self.token_names}
        embeddings = self.tower.encode(pixels, guidance, instances, self.register_token)
        N = query_index.shape[1]
        register, embedded = embeddings.split([embeddings.shape[1] - N, N], dim=1)
        return embedded, register

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Returns LoRA adapters, instance tokens and register; CLIP's own weights stay frozen."""
        tokens = [getattr(self, name) for name in self.token_names]
        if self.register_token is not None:
            tokens.append(self.register_token)
        return tokens + [parameter for name, parameter in self.visual.named_parameters() if "lora_" in name]

    def merge_adapters(self) -> None:
        """Adds the adapters to CLIP's weights, for inference; afterwards InstCLIP cannot be trained or saved."""
        for module in self.visual.modules():
            if isinstance(module, LoraLayer):
                module.merge()
        self.tower.freeze()


def pixel_statistics(visual: nn.Module) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
    """Returns mean and standard deviation of RGB, in [0, 1], that a CLIP vision transformer was trained with."""
    mean = getattr(visual, "image_mean", None) or OPENAI_DATASET_MEAN
    std = getattr(visual, "image_std", None) or OPENAI_DATASET_STD
    return torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
