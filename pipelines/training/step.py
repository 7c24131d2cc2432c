"""One optimizer step. The gradient is that of the whole batch, however many workers and parts split it."""

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.training.config import TrainingConfig
from pipelines.training.optimizer import build_optimizer, learning_rate_factor, undecayed_of

_AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class TrainingStep:
    """An objective with its optimizer, on one of the workers.

    Args:
        objective: an `Objective`, on its training device.
        config: settings of the training.
        rank: rank of the worker.
        world_size: number of workers; several need an initialised torch process group.
    """

    def __init__(self, objective: Any, config: TrainingConfig, *, rank: int = 0, world_size: int = 1) -> None:
        self.objective = objective
        self.config = config
        self.rank = rank
        self.world_size = world_size
        self.groups: dict[str, list[nn.Parameter]] = objective.parameter_groups()
        self.parameters = [parameter for group in self.groups.values() for parameter in group]
        self.optimizer = build_optimizer(self.groups, config.optimizer, undecayed=undecayed_of(objective))
        self.device = self.parameters[0].device
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.module: nn.Module = objective
        if world_size > 1:
            # Only a trained batch norm changes buffers: each worker has its own; checkpoints hold those of the first.
            self.module = DistributedDataParallel(objective, broadcast_buffers=False)

    def __call__(self, step: int, samples: Sequence[Any]) -> dict[str, float]:
        """Trains on the worker's share of a batch.

        Args:
            step: from 0.
            samples: the share, which is split into at most `accumulate` parts.

        Returns:
            The losses of the whole batch, the gradient norm before clipping, the learning rate, and seconds.

        Raises:
            FloatingPointError: a loss or the gradient is NaN or infinite; names it and the step. Weights stay
                unchanged.
        """
        start = time.monotonic()
        torch.manual_seed(((self.config.seed * 1_000_003 + step) * 1_009 + self.rank) % 2**63)
        rate = self.config.optimizer.learning_rate * learning_rate_factor(
            step, self.config.steps, self.config.optimizer
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        self.objective.advance(step / self.config.steps)
        losses = self._gradients(samples)
        total = sum(losses.values())
        if not math.isfinite(total):
            raise FloatingPointError(f"step {step + 1}: {_listed(losses)}; {_REMEDY}")
        self.scaler.unscale_(self.optimizer)
        limit = math.inf if self.config.optimizer.clip_norm is None else self.config.optimizer.clip_norm
        norm = float(nn.utils.clip_grad_norm_(self.parameters, limit))
        if not (math.isfinite(norm) or self.scaler.is_enabled()):  # the scaler skips such a step
            raise FloatingPointError(f"step {step + 1}: the gradient's norm is {norm}, {_listed(losses)}; {_REMEDY}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {
            "loss": total,
            **{f"loss/{name}": value for name, value in losses.items()},
            "gradient_norm": norm,
            "learning_rate": rate,
            "seconds": time.monotonic() - start,
        }

    def state(self) -> dict[str, Any]:
        """Returns the state to restore besides the model: optimizer, scaler, and trained parameters bit for bit."""
        parameters = {name: [weight.detach() for weight in group] for name, group in self.groups.items()}
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(), "parameters": parameters}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores a state.

        Raises:
            ValueError: its parameters differ in number or shape.
        """
        for name, group in self.groups.items():
            stored = state["parameters"].get(name, [])
            if [weight.shape for weight in stored] != [weight.shape for weight in group]:
                raise ValueError(f"checkpoint: parameter group {name!r} has other parameters; choose another output")
            with torch.no_grad():
                for weight, value in zip(group, stored, strict=True):
                    weight.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])

    def _gradients(self, samples: Sequence[Any]) -> dict[str, float]:
        """Computes the gradient of the whole batch; returns its losses."""
        size = -(-len(samples) // self.config.accumulate)
        parts = [samples[start : start + size] for start in range(0, len(samples), size)]
        counts = torch.stack([self.objective.counts(part).float() for part in parts]).sum(0).to(self.device)
        # Gradients are summed over parts, but averaged over workers.
        normalisers = self._summed(counts).clamp(min=1) / self.world_size
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for part in parts:
            with self._synchronised(part is parts[-1]):
                with torch.autocast(
                    self.device.type,
                    dtype=_AUTOCAST.get(self.config.precision),
                    enabled=self.config.precision in _AUTOCAST,
                ):
                    losses = self.module(part, normalisers)
                self.scaler.scale(torch.stack([loss.float() for loss in losses.values()]).sum()).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0) + loss.detach().double()
        totals = self._summed(torch.stack(list(sums.values()))) / self.world_size
        return dict(zip(sums, totals.tolist(), strict=True))

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Has workers exchange gradients once per step, after the last part."""
        if last or not isinstance(self.module, DistributedDataParallel):
            return nullcontext()
        return self.module.no_sync()

    def _summed(self, values: Tensor) -> Tensor:
        if self.world_size > 1:
            dist.all_reduce(values)
        return values


_REMEDY = "lower learning_rate, set clip_norm, or use another precision, with another output"


def _listed(losses: dict[str, float]) -> str:
    return ", ".join(f"loss {name} is {value}" for name, value in losses.items() if not math.isfinite(value)) or (
        f"loss is {sum(losses.values()):.4g}"
    )
