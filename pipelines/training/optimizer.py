"""AdamW, its learning-rate schedule, and which parameters get weight decay."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

Schedule = Literal["constant", "cosine", "steps"]

BACKBONE = "backbone"
"""Parameter group whose learning rate is multiplied by `OptimizerConfig.backbone_factor`."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a schedule; the numbers are Mask2Former's (Cheng et al. 2022).

    Attributes:
        learning_rate: peak learning rate, of all parameters but the backbone's.
        backbone_factor: factor on the learning rate of the backbone.
        weight_decay: weight decay of matrices and kernels; vectors (norms, biases, tokens) and embeddings have none.
        betas: decay rates of AdamW's two moments.
        clip_norm: largest gradient norm, over all parameters; null turns clipping off.
        schedule: `constant`; `cosine` falls to 0 at the last step; `steps` is multiplied by gamma at each milestone.
        warmup_steps: steps over which the learning rate rises from near 0.
        milestones: milestones of the schedule `steps`, as fractions of all steps.
        gamma: factor on the learning rate at each milestone.

    Raises:
        ValueError: a field is out of range.
    """

    learning_rate: float = 1e-4
    backbone_factor: float = 0.1
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = 0.01
    schedule: Schedule = "steps"
    warmup_steps: int = 0
    milestones: tuple[float, ...] = (0.9, 0.95)
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: expected more than 0, got {self.learning_rate}; 1e-4 is Mask2Former's")
        for name in ("backbone_factor", "weight_decay", "warmup_steps", "gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected 0 to below 1, got {self.betas}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm: expected more than 0, got {self.clip_norm}; null clips nothing")
        if self.schedule not in get_args(Schedule):
            raise ValueError(
                f"schedule: unknown value {self.schedule!r}; choose one of {', '.join(get_args(Schedule))}"
            )
        if list(self.milestones) != sorted(self.milestones) or not all(0 < share < 1 for share in self.milestones):
            raise ValueError(f"milestones: expected rising shares between 0 and 1, got {self.milestones}")


def build_optimizer(
    parameter_groups: Mapping[str, Sequence[nn.Parameter]],
    config: OptimizerConfig,
    *,
    embeddings: Sequence[Tensor] = (),
) -> torch.optim.AdamW:
    """Builds AdamW over named groups, each split into parameters with and without weight decay.

    Args:
        parameter_groups: trainable parameters by name; "backbone" has its own learning rate.
        config: hyperparameters.
        embeddings: matrices without weight decay; `embeddings_of` lists those of a module.

    Raises:
        ValueError: there is no parameter, a parameter is frozen, or it is in two groups.
    """
    spared = {id(parameter) for parameter in embeddings}
    seen: set[int] = set()
    groups: list[dict[str, Any]] = []
    for name, parameters in parameter_groups.items():
        if any(not parameter.requires_grad for parameter in parameters):
            raise ValueError(f"parameter group {name!r}: holds frozen parameters; leave them out")
        if seen & {id(parameter) for parameter in parameters}:
            raise ValueError(f"parameter group {name!r}: holds parameters of another group")
        seen |= {id(parameter) for parameter in parameters}
        factor = config.backbone_factor if name == BACKBONE else 1.0
        bare = [parameter for parameter in parameters if parameter.ndim < 2 or id(parameter) in spared]
        bare_ids = {id(parameter) for parameter in bare}
        decayed = [parameter for parameter in parameters if id(parameter) not in bare_ids]
        for members, decay in ((decayed, config.weight_decay), (bare, 0.0)):
            if members:
                groups.append({"params": members, "name": name, "factor": factor, "weight_decay": decay})
    if not groups:
        raise ValueError("parameter groups: there is nothing to train")
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)


def embeddings_of(module: nn.Module) -> list[Tensor]:
    """Returns the weights of all embedding layers."""
    return [layer.weight for layer in module.modules() if isinstance(layer, nn.Embedding)]


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
