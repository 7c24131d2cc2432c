"""InstFormer: mask proposals, one instance token each, and a rollout tracker (OpenVIS, Fig. 2)."""

from typing import Literal

import torch
from jaxtyping import Bool, Int
from open_clip import CLIP
from torch import Tensor, nn
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.clip import TextEncoder, build_clip, build_tokenizer
from openvis_model.config import InstFormerConfig
from openvis_model.crop_clip import CropClip
from openvis_model.inst_clip import InstClip
from openvis_model.instances import Instances
from openvis_model.mask_proposal import MaskProposalNetwork
from openvis_model.rle import encode_logits
from openvis_model.rollout_tracker import RolloutTracker

Stage = Literal[1, 2]


class InstFormer(nn.Module):
    """Frames in, instances out; `VideoTracker` links them with this model's rollout tracker.

    Args:
        config: what to build.
        clip: CLIP to build on instead of one with random weights; it is rebuilt in place.
        mask2former: proposal network to use instead of one with random weights.
    """

    def __init__(
        self,
        config: InstFormerConfig,
        *,
        clip: CLIP | None = None,
        mask2former: Mask2FormerForUniversalSegmentation | None = None,
    ) -> None:
        super().__init__()
        clip = clip or build_clip(config.clip)
        self.config = config
        self.mask_proposal = MaskProposalNetwork(
            config.mask_proposal, short_side=config.short_side, mask2former=mask2former
        )
        mask2former_config = self.mask_proposal.mask2former.config
        self.classifier: InstClip | CropClip
        if config.classifier == "inst_clip":
            self.classifier = InstClip(
                config.inst_clip,
                clip.visual,
                num_queries=mask2former_config.num_queries,
                short_side=config.short_side,
            )
        else:
            self.classifier = CropClip(clip.visual, short_side=config.short_side)
        self.text_encoder = TextEncoder(clip, build_tokenizer(config.clip, clip.context_length))
        token_width: int = mask2former_config.hidden_dim
        if config.rollout_tracker.token == "instance_query":
            token_width += self.classifier.embedding_width
        self.rollout_tracker = RolloutTracker(config.rollout_tracker, token_width)

    @torch.inference_mode()
    def forward(
        self, frames: Tensor, *, objectness_floor: float = 0.0, frame_size: tuple[int, int] | None = None
    ) -> list[Instances]:
        """Finds, segments and embeds the instances of each frame.

        Args:
            frames: uint8 [T, H, W, 3] on any device; each frame is looked at on its own.
            objectness_floor: proposals below are not embedded; 0 keeps all N, as benchmark runs do.
            frame_size: (height, width) in pixels of the masks, where frames were resized on decoding.

        Returns:
            One `Instances` per frame, in the order of the queries; a frame without objects gives an empty one.

        Raises:
            ValueError: for frames that `check_frames` refuses, or a floor that is no probability.
        """
        if not 0 <= objectness_floor <= 1:
            raise ValueError(f"objectness_floor: expected a probability, got {objectness_floor}")
        frames = frames.to(self.mask_proposal.mean.device)
        proposals = self.mask_proposal(frames)
        kept = proposals.objectness >= objectness_floor
        query_index, valid = compact(kept)
        frame_index = torch.arange(len(frames), device=frames.device)[:, None]
        mask_logits = proposals.mask_logits[frame_index, query_index]
        instance_tokens = self.classifier(frames, mask_logits, query_index)

        masks = encode_logits(mask_logits[valid], frame_size or (frames.shape[1], frames.shape[2]))
        counts = kept.sum(1).tolist()
        columns = (proposals.objectness[kept], instance_tokens[valid], proposals.queries[kept], query_index[valid])
        split = [column.float().cpu().split(counts) for column in columns[:3]] + [columns[3].cpu().split(counts)]
        return [Instances(*row) for row in zip(*split, masks.split(counts), strict=True)]

    def train_only(self, stage: Stage) -> list[str]:
        """Makes exactly the parameters of a training stage trainable and returns their names.

        Stage 1 trains the mask proposal network (not its frozen batch norms) and InstCLIP's adapters, instance tokens
        and register; stage 2 the rollout tracker alone. CLIP's weights never change.

        Raises:
            ValueError: for another stage.
        """
        if stage not in (1, 2):
            raise ValueError(f"stage: expected 1 (proposals and InstCLIP) or 2 (rollout tracker), got {stage!r}")
        self.requires_grad_(False)
        parts = (self.mask_proposal, self.classifier) if stage == 1 else (self.rollout_tracker,)
        for parameter in (parameter for part in parts for parameter in part.trainable_parameters()):
            parameter.requires_grad_(True)
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]


def compact(kept: Bool[Tensor, "T N"]) -> tuple[Int[Tensor, "T n"], Bool[Tensor, "T n"]]:
    """Indices of the kept entries of each row, moved to the front in their order, and which of them are no filling.

    n is the largest number kept in a row.
    """
    most = int(kept.sum(1).max())
    order = (~kept).byte().argsort(dim=1, stable=True)[:, :most]
    return order, kept.gather(1, order)
