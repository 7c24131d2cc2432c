"""InstFormer: mask proposals, an instance token for each, and a rollout tracker (OpenVIS, Fig. 2)."""

import hashlib
import json
from typing import Literal

import torch
from torch import nn

from openvis_model.clip import Clip, build_clip, build_text_encoder, check_vision_tower
from openvis_model.clip_towers import guided_tower
from openvis_model.config import InstFormerConfig
from openvis_model.crop_clip import CropClip
from openvis_model.fingerprint import tensor_fingerprint
from openvis_model.frame_model import FrameModel
from openvis_model.inst_clip import InstClip
from openvis_model.mask_proposal import MaskProposalNetwork, PretrainedProposals
from openvis_model.proposal_networks import build_mask_proposal
from openvis_model.rollout_tracker import RolloutTracker
from openvis_model.tokenizer import Tokenizer

Stage = Literal[1, 2]


class InstFormer(FrameModel):
    """The model as it is trained. A new one is in eval mode.

    Args:
        config: the architecture.
        clip: CLIP to use instead of one with random weights; it is modified in place.
        proposals: proposal network to use instead of one with random weights.
        tokenizer: CLIP's tokenizer, if there is one already.

    Raises:
        ValueError: for a CLIP or proposal network that differs from the config.
    """

    mask_proposal: MaskProposalNetwork
    classifier: InstClip | CropClip

    def __init__(
        self,
        config: InstFormerConfig,
        *,
        clip: Clip | None = None,
        proposals: PretrainedProposals | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        super().__init__()
        if clip is not None:
            check_clip(clip, config)
        if proposals is not None:
            check_proposals(proposals, config)
        clip = clip or build_clip(config.clip)
        check_vision_tower(config.clip)
        self.config = config
        self.short_side = config.short_side
        self.stage: Stage | None = None
        self.mask_proposal = build_mask_proposal(
            config.mask_proposal, short_side=config.short_side, network=proposals and proposals.network
        )
        if config.classifier == "inst_clip":
            self.classifier = InstClip(
                config.inst_clip,
                clip.visual,
                num_queries=self.mask_proposal.num_queries,
                short_side=config.classifier_side,
            )
        else:
            self.classifier = CropClip(clip.visual, short_side=config.classifier_side)
        self.text_encoder = build_text_encoder(config.clip, clip, tokenizer)
        token_width = self.mask_proposal.query_width
        if config.rollout_tracker.token == "instance_query":
            token_width += self.classifier.embedding_width
        self.rollout_tracker = RolloutTracker(config.rollout_tracker, token_width)
        self.eval()

    def identity(self) -> str:
        """Returns a hash of the config and the weights."""
        content = json.dumps([self.config.to_dict(), tensor_fingerprint(self.state_dict())])
        return hashlib.sha256(content.encode()).hexdigest()

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
            ValueError: for an unknown stage.
        """
        if stage not in (1, 2):
            raise ValueError(f"stage: expected 1 (proposals and InstCLIP) or 2 (rollout tracker), got {stage!r}")
        self.stage = stage
        self.requires_grad_(False)
        for parameter in (each for module in self._trained(stage) for each in module.trainable_parameters()):
            parameter.requires_grad_(True)
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def _trained(self, stage: Stage) -> tuple[MaskProposalNetwork | InstClip | CropClip | RolloutTracker, ...]:
        return (self.mask_proposal, self.classifier) if stage == 1 else (self.rollout_tracker,)


def check_proposals(proposals: PretrainedProposals, config: InstFormerConfig) -> None:
    """Checks that a proposal network matches the config.

    Raises:
        ValueError: names what differs: the network, its input, or the first weight, with both shapes.
    """
    given, wanted = proposals.config, config.mask_proposal
    for name in ("network", "pixel_mean", "pixel_std", "image_size"):
        values = getattr(given, name), getattr(wanted, name)
        if values[0] != values[1]:
            raise ValueError(
                f"mask_proposal: its {name} is {values[0]}, the config's {values[1]}; put the network's own config "
                "into the model's"
            )
    with torch.device("meta"):
        expected = build_mask_proposal(wanted, short_side=config.short_side).network
    _check_shapes("mask_proposal", proposals.network, expected)


def check_clip(clip: Clip, config: InstFormerConfig) -> None:
    """Checks that a CLIP matches the config.

    Raises:
        ValueError: names what differs: a weight with both shapes, the activation, the heads or the pixel statistics.
    """
    with torch.device("meta"):
        expected = build_clip(config.clip)
    _check_shapes("clip", clip, expected)
    towers = [guided_tower(model.visual) for model in (clip, expected)]
    values: dict[str, list[object]] = {
        "activation": [tower.activation for tower in towers],
        "heads": [tower.heads for tower in towers],
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
