import math
from typing import Any

import pytest
import torch

from pipelines.training.config import OptimizerConfig, TrainingConfig
from pipelines.training.step import TrainingStep
from tests.pipelines.training.points import OPTIMIZER, Points, PointsStage, sample, settings

SAMPLES = [sample(number) for number in range(8)]


def step(tmp_path: Any, **options: Any) -> TrainingStep:
    torch.manual_seed(0)
    return TrainingStep(PointsStage().build(None), settings(tmp_path, **options))


def losses(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "seconds" not in name}


def test_by_hand(tmp_path: Any) -> None:
    """Against the same thing written plainly."""
    torch.manual_seed(0)
    objective = Points()
    counts = objective.counts(SAMPLES)
    found = objective(SAMPLES, counts)
    total = torch.stack(list(found.values())).sum()
    total.backward()
    norm = math.sqrt(sum(float(weight.grad.square().sum()) for weight in objective.parameters()))
    metrics = step(tmp_path)(3, SAMPLES)
    assert metrics["loss"] == pytest.approx(total.item())
    assert metrics["loss/fit"] == pytest.approx(found["fit"].item())
    assert metrics["gradient_norm"] == pytest.approx(norm)
    assert metrics["learning_rate"] == pytest.approx(0.05 * 0.5 * (1 + math.cos(math.pi / 6)))


def test_the_backbone_has_a_rate_of_its_own(tmp_path: Any) -> None:
    its = step(tmp_path)
    its(3, SAMPLES)
    rates = {group["name"]: group["lr"] for group in its.optimizer.param_groups}
    assert rates["backbone"] == pytest.approx(0.1 * rates["other"])


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_parts_change_nothing(tmp_path: Any, accumulate: int) -> None:
    whole, parts = step(tmp_path), step(tmp_path, accumulate=accumulate)
    for number in range(3):
        assert losses(parts(number, SAMPLES)) == pytest.approx(losses(whole(number, SAMPLES)), rel=1e-5)
    for a, b in zip(whole.parameters, parts.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_batch_without_anything_to_count(tmp_path: Any) -> None:
    metrics = step(tmp_path)(0, [sample(0)] * 8)
    assert metrics["loss/fit"] == 0


def test_clipping(tmp_path: Any) -> None:
    """AdamW does not see the scale of gradients, so its first moment is what is looked at."""
    moments = {}
    for clip in (None, 1e-3):
        optimizer = OptimizerConfig(clip_norm=clip)
        its = step(tmp_path, optimizer=optimizer)
        norm = its(0, SAMPLES)["gradient_norm"]
        state = its.optimizer.state_dict()["state"].values()
        moments[clip] = math.sqrt(sum(float(each["exp_avg"].square().sum()) for each in state)) / 0.1
        assert norm > 1e-3
    assert moments == {None: pytest.approx(norm, rel=1e-4), 1e-3: pytest.approx(1e-3, rel=1e-2)}


def test_randomness_follows_from_the_step(tmp_path: Any) -> None:
    drawn = []
    for seed, number, rank in [(0, 1, 0), (0, 1, 0), (0, 2, 0), (1, 1, 0), (0, 1, 1)]:
        its = TrainingStep(Points(), settings(tmp_path, seed=seed), rank=rank)
        torch.rand(number * 3)
        its(number, SAMPLES)
        drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4


def test_state(tmp_path: Any) -> None:
    """What the model's folder lacks is in it too."""
    one, other = step(tmp_path), step(tmp_path, seed=5)
    one(0, SAMPLES)
    file = tmp_path / "state.pt"
    torch.save(one.state(), file)
    other.load_state(torch.load(file, weights_only=True))
    assert losses(other(1, SAMPLES)) == losses(one(1, SAMPLES))
    assert torch.equal(other.objective.head, one.objective.head)


def test_state_of_other_parameters(tmp_path: Any) -> None:
    its = step(tmp_path)
    state = its.state()
    state["parameters"]["other"].pop()
    with pytest.raises(ValueError, match="parameter group 'other' has other parameters"):
        its.load_state(state)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_is_named_before_it_is_learnt(tmp_path: Any, value: float) -> None:
    its = step(tmp_path)
    before = [weight.clone() for weight in its.parameters]
    broken = [(points, wanted * value) for points, wanted in SAMPLES]
    with pytest.raises(FloatingPointError, match=f"step 3: loss fit is {value}; lower learning_rate, set clip_norm"):
        its(2, broken)
    assert all(torch.equal(a, b) for a, b in zip(before, its.parameters, strict=True))


def test_a_gradient_that_is_not_finite_is_named(tmp_path: Any) -> None:
    class Steep(Points):
        def forward(self, samples: Any, normalisers: torch.Tensor) -> dict[str, torch.Tensor]:
            losses = super().forward(samples, normalisers)
            return losses | {"root": (self.head.sum() - self.head.sum()).sqrt()}

    with pytest.raises(FloatingPointError, match="step 1: the gradient's norm is nan, loss is "):
        TrainingStep(Steep(), settings(tmp_path))(0, SAMPLES)


def test_mixed_precision(tmp_path: Any) -> None:
    plain, mixed = step(tmp_path), step(tmp_path, precision="bfloat16")
    seen = []
    mixed.objective.network[0].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    a, b = plain(0, SAMPLES), mixed(0, SAMPLES)
    assert seen == [torch.bfloat16]
    assert b["loss"] != a["loss"]
    assert b["loss"] == pytest.approx(a["loss"], rel=0.02)
    assert all(weight.dtype == torch.float32 for weight in mixed.parameters)


def test_weight_decay_spares_embeddings(tmp_path: Any) -> None:
    class Named(Points):
        def __init__(self) -> None:
            super().__init__()
            self.names = torch.nn.Embedding(4, 8)

        def advance(self, progress: float) -> None:
            pass

        def parameter_groups(self) -> dict[str, list[torch.nn.Parameter]]:
            return super().parameter_groups() | {"names": [self.names.weight]}

    config = TrainingConfig(output=str(tmp_path), steps=1, batch_size=8, optimizer=OPTIMIZER)
    groups = TrainingStep(Named(), config).optimizer.param_groups
    assert {group["name"]: group["weight_decay"] for group in groups}["names"] == 0
