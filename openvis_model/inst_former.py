"""InstFormer: mask proposals, an instance token for each, and a rollout tracker (OpenVIS, Fig. 2)."""

from typing import Literal

import torch
from jaxtyping import Bool, Int
from open_clip import CLIP
from torch import Tensor, nn
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.clip import build_clip, build_text_encoder
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
    """Frames in, instances out; `VideoTracker` links them with this model's rollout tracker.

    A new model is in eval mode.

    Args:
        config: the architecture.
        clip: CLIP to use instead of one with random weights; it is modified in place.
        mask2former: proposal network to use instead of one with random weights.

    Raises:
        ValueError: for a CLIP or proposal network that differs from the config.
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
        self.text_encoder = build_text_encoder(config.clip, clip)
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
        frames = frames.to(self.mask_proposal.mean.device)
        proposals = self.mask_proposal(frames)
        kept = proposals.objectness >= objectness_floor
        query_index, valid = compact(kept)
        frame_index = torch.arange(len(frames), device=frames.device)[:, None]
        mask_logits = proposals.mask_logits[frame_index, query_index]
        instance_tokens = self.classifier(frames, mask_logits, query_index)
        for name, values in (("objectness", proposals.objectness), ("instance tokens", instance_tokens)):
            if not values.isfinite().all():
                raise ValueError(
                    f"model: its {name} are NaN: the weights contain NaN, or overflow in this precision; use another "
                    "checkpoint, or float32"
                )

        masks = encode_logits(mask_logits[valid], size)
        counts = kept.sum(1).tolist()
        columns = (proposals.objectness[kept], instance_tokens[valid], proposals.queries[kept], query_index[valid])
        # Clones: a view would be pickled with the memory of the whole batch.
        split = [[part.clone() for part in column.cpu().split(counts)] for column in columns]
        objectness, tokens, queries = ([part.float() for part in parts] for parts in split[:3])
        return [Instances(*row) for row in zip(objectness, tokens, queries, split[3], masks.split(counts), strict=True)]

    def fold_for_inference(self) -> "InstFormer":
        """Folds InstCLIP's adapters and activation factors into its linear layers, in place; returns itself."""
        if isinstance(self.classifier, InstClip):
            self.classifier.fold_for_inference()
            self.folded = True
        return self

    def train(self, mode: bool = True) -> "InstFormer":
        """Switches to training or evaluation; modules that the training stage freezes stay in eval mode."""
        super().train(mode)
        if self.stage is not None:
            for module in (self.mask_proposal, self.classifier, self.text_encoder, self.rollout_tracker):
                module.train(mode and module in self._trained(self.stage))
        return self

    def train_only(self, stage: Stage) -> list[str]:
        """Makes exactly the parameters of a training stage trainable, and returns their names.

        Stage 1 trains the mask proposal network (except frozen batch norms) and InstCLIP's adapters, instance tokens
        and register. Stage 2 trains the rollout tracker alone. CLIP's own weights never change.

        Raises:
            ValueError: for an unknown stage, or a model that was folded for inference.
        """
        if stage not in (1, 2):
            raise ValueError(f"stage: expected 1 (proposals and InstCLIP) or 2 (rollout tracker), got {stage!r}")
        if self.folded:
            raise ValueError("model: is folded for inference and cannot be trained; load the checkpoint again")
        self.stage = stage
        self.requires_grad_(False)
        for parameter in (each for module in self._trained(stage) for each in module.trainable_parameters()):
            parameter.requires_grad_(True)
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def _trained(self, stage: Stage) -> tuple[MaskProposalNetwork | InstClip | CropClip | RolloutTracker, ...]:
        return (self.mask_proposal, self.classifier) if stage == 1 else (self.rollout_tracker,)


def check_mask2former(mask2former: Mask2FormerForUniversalSegmentation, config: InstFormerConfig) -> None:
    """Checks that a proposal network matches the config.

    Raises:
        ValueError: names the first weight that differs, with both shapes.
    """
    with torch.device("meta"):
        expected = Mask2FormerForUniversalSegmentation(config.mask_proposal.build())
    _check_shapes("mask2former", mask2former, expected)


def check_clip(clip: CLIP, config: InstFormerConfig) -> None:
    """Checks that a CLIP matches the config.

    Raises:
        ValueError: names what differs: a weight with both shapes, the activation, the heads or the pixel statistics.
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
        given_shape, expected_shape = (by_name.get(key, "missing") for by_name in shapes)
        if given_shape != expected_shape:
            raise ValueError(
                f"{name}: {key} is {given_shape}, the config wants {expected_shape}; use the {name} that the config "
                "describes"
            )


def compact(kept: Bool[Tensor, "T N"]) -> tuple[Int[Tensor, "T n"], Bool[Tensor, "T n"]]:
    """Returns the indices of the kept entries of each row, moved to the front in order, and which are not padding.

    n is the largest number of entries kept in a row.
    """
    most = int(kept.sum(1).max())
    order = (~kept).byte().argsort(dim=1, stable=True)[:, :most]
    return order, kept.gather(1, order)
