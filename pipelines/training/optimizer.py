"""AdamW, its learning-rate schedule, and which parameters get weight decay."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.training.config import OptimizerConfig

BACKBONE = "backbone"
"""Parameter group whose learning rate is multiplied by `OptimizerConfig.backbone_factor`."""

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)

_POSITIONS = ("relative_position_bias_table", "position_embeddings", "positional_embedding")

_TOKENS = (
    "class_embedding",
    "instance_tokens",
    "instance_probes",
    "register_token",
    "cls_token",
    "register_tokens",
    "mask_token",
)


def build_optimizer(
    parameter_groups: Mapping[str, Sequence[nn.Parameter]],
    config: OptimizerConfig,
    *,
    undecayed: Sequence[Tensor] = (),
) -> torch.optim.AdamW:
    """Builds AdamW over named groups, each split into parameters with and without weight decay.

    Args:
        parameter_groups: trainable parameters by name; "backbone" has its own learning rate.
        config: hyperparameters.
        undecayed: parameters without weight decay; `undecayed_of` lists those of a module.

    Raises:
        ValueError: there is no parameter, a parameter is frozen, or it is in two groups.
    """
    spared = {id(parameter) for parameter in undecayed}
    seen: set[int] = set()
    groups: list[dict[str, Any]] = []
    for name, parameters in parameter_groups.items():
        if any(not parameter.requires_grad for parameter in parameters):
            raise ValueError(f"parameter group {name!r}: holds frozen parameters; leave them out")
        if seen & {id(parameter) for parameter in parameters}:
            raise ValueError(f"parameter group {name!r}: holds parameters of another group")
        seen |= {id(parameter) for parameter in parameters}
        factor = config.backbone_factor if name == BACKBONE else 1.0
        bare = [parameter for parameter in parameters if id(parameter) in spared]
        decayed = [parameter for parameter in parameters if id(parameter) not in spared]
        for members, decay in ((decayed, config.weight_decay), (bare, 0.0)):
            if members:
                groups.append({"params": members, "name": name, "factor": factor, "weight_decay": decay})
    if not groups:
        raise ValueError("parameter groups: there is nothing to train")
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


def undecayed_of(module: nn.Module) -> list[Tensor]:
    """Returns the parameters of a module that get no weight decay.

    As in Mask2Former's training, these are all of a norm, the weights of embedding layers, and tables of positions;
    biases are decayed. CLIP's temperature, and the learned tokens of CLIP and InstCLIP, count as embeddings.
    """
    return [
        parameter
        for layer in module.modules()
        for name, parameter in layer.named_parameters(recurse=False)
        if isinstance(layer, (*_NORMS, nn.Embedding)) or name in (*_POSITIONS, *_TOKENS, "logit_scale")
    ]


def learning_rate_factor(step: int, steps: int, config: OptimizerConfig) -> float:
    """Returns the factor on the learning rate in a step; it depends on the step alone and needs no saved state.

    Args:
        step: from 0.
        steps: steps of the whole training.
        config: the schedule.
    """
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.schedule == "cosine":
        past = max(step - config.warmup_steps, 0) / max(steps - config.warmup_steps, 1)
        return warmup * 0.5 * (1 + math.cos(math.pi * min(past, 1.0)))
    if config.schedule == "steps":
        # In whole steps: 0.95 · 6000 is not an integer in floats.
        return warmup * config.gamma ** sum(step >= round(share * steps) for share in config.milestones)
    return warmup
