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
from openvis_model.frames import check_frames
from openvis_model.inst_clip import InstClip
from openvis_model.instances import Instances
from openvis_model.mask_proposal import MaskProposalNetwork
from openvis_model.rle import encode_logits
from openvis_model.rollout_tracker import RolloutTracker

Stage = Literal[1, 2]


class InstFormer(nn.Module):
    """Frames in, instances out; `VideoTracker` links them with this model's rollout tracker. It starts in eval mode.

    Args:
        config: what to build.
        clip: CLIP to build on instead of one with random weights; it is rebuilt in place.
        mask2former: proposal network to use instead of one with random weights.

    Raises:
        ValueError: for parts that are not those of the config.
    """

    def __init__(
        self,
        config: InstFormerConfig,
        *,
        clip: CLIP | None = None,
        mask2former: Mask2FormerForUniversalSegmentation | None = None,
    ) -> None:
        super().__init__()
        if clip is not None:
            check_clip(clip, config)
        if mask2former is not None:
            check_mask2former(mask2former, config)
        clip = clip or build_clip(config.clip)
        self.config = config
        self.stage: Stage | None = None
        self.folded = False
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
        self.eval()

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
            ValueError: for frames that `check_frames` refuses, a floor that is no probability, a size that is none, a
                model in training mode, or a model that computes NaN.
        """
        check_frames(frames)
        size = frame_size or (frames.shape[1], frames.shape[2])
        if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
            raise ValueError(f"frame_size: expected (height, width) in pixels, two positive ints, got {frame_size}")
        if not 0 <= objectness_floor <= 1:
            raise ValueError(f"objectness_floor: expected a probability, got {objectness_floor}")
        if self.training:
            raise ValueError("model: in training mode, where results are random; call eval() first")
        frames = frames.to(self.mask_proposal.mean.device)
        proposals = self.mask_proposal(frames)
        kept = proposals.objectness >= objectness_floor
        query_index, valid = compact(kept)
        frame_index = torch.arange(len(frames), device=frames.device)[:, None]
        mask_logits = proposals.mask_logits[frame_index, query_index]
        instance_tokens = self.classifier(frames, mask_logits, query_index)
        for name, values in (("objectness", proposals.objectness), ("instance tokens", instance_tokens)):
            if not values.isfinite().all():
                raise ValueError(f"model: its {name} are NaN; its weights are, or do not bear this precision")

        masks = encode_logits(mask_logits[valid], size)
        counts = kept.sum(1).tolist()
        columns = (proposals.objectness[kept], instance_tokens[valid], proposals.queries[kept], query_index[valid])
        # Clones, or every frame would be pickled with the memory of the whole batch.
        split = [[part.clone() for part in column.cpu().split(counts)] for column in columns]
        objectness, tokens, queries = ([part.float() for part in parts] for parts in split[:3])
        return [Instances(*row) for row in zip(objectness, tokens, queries, split[3], masks.split(counts), strict=True)]

    def fold_for_inference(self) -> "InstFormer":
        """Folds what only training needs apart into the linear layers, in place (see `InstClip`); returns itself."""
        if isinstance(self.classifier, InstClip):
            self.classifier.fold_for_inference()
            self.folded = True
        return self

    def train(self, mode: bool = True) -> "InstFormer":
        """Switches to training; only the parts that the stage trains leave eval mode."""
        super().train(mode)
        if self.stage is not None:
            for part in (self.mask_proposal, self.classifier, self.text_encoder, self.rollout_tracker):
                part.train(mode and part in self._parts(self.stage))
        return self

    def train_only(self, stage: Stage) -> list[str]:
        """Makes exactly the parameters of a training stage trainable and returns their names.

        Stage 1 trains the mask proposal network (not its frozen batch norms) and InstCLIP's adapters, instance tokens
        and register; stage 2 the rollout tracker alone. CLIP's weights never change.

        Raises:
            ValueError: for another stage, or a model that was folded for inference.
        """
        if stage not in (1, 2):
            raise ValueError(f"stage: expected 1 (proposals and InstCLIP) or 2 (rollout tracker), got {stage!r}")
        if self.folded:
            raise ValueError("model: was folded for inference and cannot be trained; load the checkpoint again")
        self.stage = stage
        self.requires_grad_(False)
        for parameter in (parameter for part in self._parts(stage) for parameter in part.trainable_parameters()):
            parameter.requires_grad_(True)
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def _parts(self, stage: Stage) -> tuple[MaskProposalNetwork | InstClip | CropClip | RolloutTracker, ...]:
        return (self.mask_proposal, self.classifier) if stage == 1 else (self.rollout_tracker,)


def check_mask2former(mask2former: Mask2FormerForUniversalSegmentation, config: InstFormerConfig) -> None:
    """Checks that a proposal network is the one of the config.

    Raises:
        ValueError: names the first weights that differ, with both shapes.
    """
    with torch.device("meta"):
        expected = Mask2FormerForUniversalSegmentation(config.mask_proposal.build())
    _check_shapes("mask2former", mask2former, expected)


def check_clip(clip: CLIP, config: InstFormerConfig) -> None:
    """Checks that a CLIP is the one of the config.

    Raises:
        ValueError: names what differs: weights with both shapes, the activation, or the pixel statistics.
    """
    with torch.device("meta"):
        expected = build_clip(config.clip)
    _check_shapes("clip", clip, expected)
    values = {
        "activation": [type(model.visual.transformer.resblocks[0].mlp.gelu).__name__ for model in (clip, expected)],
        "heads": [model.visual.transformer.resblocks[0].attn.num_heads for model in (clip, expected)],
        "pixel_mean": [tuple(model.visual.image_mean) for model in (clip, expected)],
        "pixel_std": [tuple(model.visual.image_std) for model in (clip, expected)],
    }
    for name, (given, wanted) in values.items():
        if given != wanted:
            raise ValueError(f"clip: its {name} is {given}, the config's {wanted}; use the CLIP that config.clip names")


def _check_shapes(name: str, given: nn.Module, expected: nn.Module) -> None:
    shapes = [{key: list(value.shape) for key, value in model.state_dict().items()} for model in (given, expected)]
    for key in sorted(set(shapes[0]) | set(shapes[1])):
        one, other = (found.get(key, "none") for found in shapes)
        if one != other:
            raise ValueError(
                f"{name}: {key} is {one}, the config wants {other}; use the {name} that the config describes"
            )


def compact(kept: Bool[Tensor, "T N"]) -> tuple[Int[Tensor, "T n"], Bool[Tensor, "T n"]]:
    """Indices of the kept entries of each row, moved to the front in their order, and which of them are no filling.

    n is the largest number kept in a row.
    """
    most = int(kept.sum(1).max())
    order = (~kept).byte().argsort(dim=1, stable=True)[:, :most]
    return order, kept.gather(1, order)
