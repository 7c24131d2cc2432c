"""Loads and checks state dicts that must fit a module exactly."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Loads a state dict that must fit exactly.

    Raises:
        ValueError: lists every name that is missing, unexpected, of another shape, or not finite.
    """
    own = module.state_dict()
    problems = {
        "missing": sorted(set(own) - set(state)),
        "unexpected": sorted(set(state) - set(own)),
        "of another shape": [
            f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
            for name in sorted(set(own) & set(state))
            if state[name].shape != own[name].shape
        ],
    }
    if any(problems.values()):
        lists = [f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names]
        raise ValueError(f"{source}: {'; '.join(lists)}")
    check_finite(state, source=source)
    module.load_state_dict(state)


def check_finite(state: Mapping[str, Tensor], *, source: str) -> None:
    """Checks that no weight is NaN or infinite.

    Raises:
        ValueError: lists the names of weights that are.
    """
    if names := [name for name, tensor in sorted(state.items()) if not torch.isfinite(tensor).all()]:
        raise ValueError(f"{source}: NaN or infinite numbers in {', '.join(names)}; use an earlier checkpoint")


def contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies a state dict into the form that safetensors takes: on the CPU, contiguous, without shared memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
