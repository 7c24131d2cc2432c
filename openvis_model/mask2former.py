"""Mask2Former as a mask proposal network (Cheng et al. 2022), with any backbone that `transformers` has."""

import copy
import json
import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoBackbone, Mask2FormerForUniversalSegmentation
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

from openvis_model.clip import check_names
from openvis_model.mask_proposal import MaskProposalConfig, MaskProposalNetwork, field_names
from openvis_model.options import SIZE_DIVISOR, check_published
from openvis_model.proposals import Proposals, collapse
from openvis_model.working_size import working_size

# This logger's only message says that another backbone than Swin "may not be compatible"; `_check_maps` finds out.
logging.getLogger("transformers.models.mask2former.configuration_mask2former").setLevel(logging.ERROR)

PROBE = 64
"""Side of the picture that shows which maps a backbone makes, pixels."""


class Mask2Former(MaskProposalNetwork):
    """Closed-set checkpoints work unchanged: class logits are collapsed to object against no object."""

    transformers_class = Mask2FormerForUniversalSegmentation
    queries = "model.transformer_module.queries_features.weight"

    @property
    def query_width(self) -> int:
        """C, width of a query."""
        return int(self.network.config.hidden_dim)

    @property
    def size_divisor(self) -> int:
        """The coarsest feature map has 1/32 of the pixels."""
        return SIZE_DIVISOR

    @classmethod
    def check(cls, config: MaskProposalConfig) -> None:
        """Checks the plain values, those of the backbone first.

        Raises:
            ValueError: for a field that does not exist, or a value that `transformers` refuses or we do.
        """
        backbone = config.architecture.get("backbone_config", {"model_type": "swin"})
        kind, name = backbone.get("model_type") if isinstance(backbone, dict) else None, "mask_proposal.mask2former"
        if kind not in MODEL_FOR_BACKBONE_MAPPING_NAMES:
            raise ValueError(
                f"{name}.backbone_config.model_type: unknown value {kind!r}; choose from "
                f"{tuple(MODEL_FOR_BACKBONE_MAPPING_NAMES)}"
            )
        check_names(backbone, field_names(CONFIG_MAPPING[kind]), f"{name}.backbone_config")
        super().check(config)

    @classmethod
    def check_architecture(cls, config: MaskProposalConfig, name: str) -> None:
        """Checks dropout, that the layers are as published, and the maps of an unusual backbone.

        Raises:
            ValueError: names what differs.
        """
        check_published(config.architecture, name)
        built = config.build()
        if built.decoder_layers < 4:
            raise ValueError(
                f"{name}.decoder_layers: expected at least 4, the bare queries and a layer for each of three maps, got "
                f"{built.decoder_layers}"
            )
        if built.dropout:
            raise ValueError(f"{name}.dropout: expected 0, got {built.dropout}; it would skip decoder layers")
        if built.backbone_config.model_type not in ("resnet", "swin"):
            _check_maps(json.dumps(built.backbone_config.to_dict()), f"{name}.backbone_config")

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns the working size of a frame."""
        return working_size(height, width, short_side=self.short_side, divisor=self.size_divisor)

    def propose(self, pixels: Tensor, *, last_alone: bool) -> list[Proposals]:
        """Returns the proposals of the layers; each layer needs the masks of the one before it."""
        output = self.network.model(pixels, output_hidden_states=True)
        states = [state.transpose(0, 1) for state in output.transformer_decoder_intermediate_states]
        layers = list(zip(output.masks_queries_logits, states, strict=True))
        return [
            Proposals(mask_logits, queries, collapse(self.network.class_predictor(queries)))
            for mask_logits, queries in (layers[-1:] if last_alone else layers)
        ]

    def backbone(self) -> nn.Module:
        """Returns what makes the feature maps."""
        backbone: nn.Module = self.network.model.pixel_level_module.encoder
        return backbone

    def untrained(self) -> list[nn.Parameter]:
        """Returns parameters of the backbone that feature maps bypass, such as Swin's last norm."""
        probe = copy.deepcopy(self.backbone()).requires_grad_(True).eval()
        with torch.enable_grad():
            maps = probe(self.mean.new_zeros(1, 3, PROBE, PROBE)).feature_maps
            gradients = torch.autograd.grad(
                sum(each.sum() for each in maps), list(probe.parameters()), allow_unused=True
            )
        return [
            parameter
            for parameter, gradient in zip(self.backbone().parameters(), gradients, strict=True)
            if gradient is None
        ]


@cache
def _check_maps(backbone_config: str, name: str) -> None:
    """Checks that a backbone makes maps at 1/4, 1/8, 1/16 and 1/32 of the pixels, without any memory.

    Raises:
        ValueError: it does not, or `transformers` cannot build it.
    """
    values: dict[str, Any] = json.loads(backbone_config)
    expected = [PROBE // 4, PROBE // 8, PROBE // 16, PROBE // 32]
    try:
        with torch.device("meta"), torch.no_grad():
            backbone = AutoBackbone.from_config(CONFIG_MAPPING[values["model_type"]].from_dict(values)).eval()
            maps = backbone(torch.zeros(1, 3, PROBE, PROBE)).feature_maps
    except Exception as error:
        raise ValueError(f"{name}: transformers cannot build this backbone ({error}); choose another") from error
    sides = [each.shape[-1] for each in maps]
    if sides != expected:
        raise ValueError(
            f"{name}: of {PROBE} pixels it makes maps of {sides}, Mask2Former needs {expected}; choose a backbone with "
            "four such stages, and name them in out_features"
        )
