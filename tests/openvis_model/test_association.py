import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from openvis_model.association import Association, Sort, assign, build_association, cosine, xywh_iou
from openvis_model.instances import Instances
from openvis_model.options import AssociationConfig, AssociationKind, RolloutTrackerConfig
from openvis_model.rle import RleMasks
from openvis_model.rollout_tracker import RolloutTracker


def instances(queries: list[list[float]], boxes: list[list[int]] | None = None) -> Instances:
    """Instances with these queries and boxes; the instance tokens are (1, 0)."""
    n = len(queries)
    box_array = np.array(boxes if boxes else np.zeros((n, 4)), dtype=np.int64).reshape(n, 4)
    masks = RleMasks((100, 100), (b"",) * n, box_array[:, 2] * box_array[:, 3], box_array)
    tokens = torch.tensor([1.0, 0.0]).expand(n, 2)
    return Instances(
        torch.ones(n), tokens, torch.tensor(queries).view(n, -1), torch.arange(n), torch.zeros(n, 3), masks
    )


def build(kind: AssociationKind, **fields: object) -> Association:
    tracker = RolloutTracker(RolloutTrackerConfig(kind="linear", token="query"), 2)
    with torch.no_grad():
        tracker.predictor.weight.copy_(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))  # a quarter turn
        tracker.predictor.bias.zero_()
    return build_association(AssociationConfig(kind=kind, token="query", **fields), tracker)


def test_cosine_by_hand() -> None:
    similarity = cosine(torch.tensor([[1.0, 0.0], [3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 5.0], [4.0, 3.0]]))
    assert similarity.flatten().tolist() == pytest.approx([1, 0, 0.8, 0.6, 0.8, 24 / 25])


def test_assignment_is_the_best_in_total() -> None:
    """Greedy would take 0.9 and be left with 0.1, 1.0 in total; 0.8 + 0.7 is better."""
    rows, columns = assign(torch.tensor([[0.9, 0.8], [0.7, 0.1]]), min_similarity=-1)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])


@pytest.mark.parametrize("shape", [(2, 3), (3, 2), (0, 3), (3, 0)])
def test_assignment_is_rectangular(shape: tuple[int, int]) -> None:
    rows, columns = assign(torch.rand(shape), min_similarity=-1)
    assert len(rows) == len(columns) == min(shape)


def test_matches_below_the_minimum_are_refused() -> None:
    rows, columns = assign(torch.tensor([[0.9, 0.0], [0.0, 0.4]]), min_similarity=0.5)
    assert (rows.tolist(), columns.tolist()) == ([0], [0])


def test_rollout_compares_with_the_prediction() -> None:
    """The tracker turns by 90 degrees: a track seen at (1, 0) is expected at (0, 1), not at (1, 0)."""
    association = build("rollout")
    seen = association.observe(instances([[1.0, 0.0]]))
    memory = association.start(seen)
    similarity = association.similarity(memory, association.observe(instances([[1.0, 0.0], [0.0, 2.0]])))
    assert similarity.tolist()[0] == pytest.approx([0, 1], abs=1e-6)
    memory = association.update(memory, association.observe(instances([[0.0, 1.0]])))
    similarity = association.similarity(memory, association.observe(instances([[-1.0, 0.0]])))
    assert similarity.item() == pytest.approx(1, abs=1e-6)


def test_hungarian_compares_with_the_last_frame() -> None:
    association = build("hungarian")
    memory = association.start(association.observe(instances([[1.0, 0.0]])))
    memory = association.update(memory, association.observe(instances([[0.0, 1.0]])))
    similarity = association.similarity(memory, association.observe(instances([[1.0, 0.0], [0.0, 1.0]])))
    assert similarity.tolist() == [[0, 1]]


def test_momentum_by_hand() -> None:
    """0.7 · (0, 1) + 0.3 · (1, 0) = (0.3, 0.7), whose cosine with (0, 1) is 0.7 / sqrt(0.58)."""
    association = build("momentum")
    memory = association.start(association.observe(instances([[1.0, 0.0]])))
    memory = association.update(memory, association.observe(instances([[0.0, 1.0]])))
    similarity = association.similarity(memory, association.observe(instances([[0.0, 1.0]])))
    assert similarity.item() == pytest.approx(0.7 / math.sqrt(0.58))


def test_momentum_averages_queries_at_their_length_by_hand() -> None:
    """0.7 · (0, 2) + 0.3 · (4, 0) = (1.2, 1.4), whose cosine with (0, 1) is 1.4 / sqrt(3.4).

    Of unit queries it were (0.3, 0.7), as above.
    """
    association = build("momentum")
    memory = association.start(association.observe(instances([[4.0, 0.0]])))
    memory = association.update(memory, association.observe(instances([[0.0, 2.0]])))
    similarity = association.similarity(memory, association.observe(instances([[0.0, 1.0]])))
    assert similarity.item() == pytest.approx(1.4 / math.sqrt(3.4))


@pytest.mark.parametrize("kind", get_args(AssociationKind))
def test_only_running_queries_take_in_empty_masks(kind: AssociationKind) -> None:
    assert build(kind).takes_empty_masks == (kind in ("hungarian", "momentum"))
    if kind in ("hungarian", "momentum"):
        assert not build_association(AssociationConfig(kind=kind), None).takes_empty_masks


def test_iou_by_hand() -> None:
    """10 × 10 boxes shifted by 5: 50 / 150; identical: 1; apart: 0; two empty ones: 0."""
    association = build("iou")
    queries = [[1.0, 0.0]] * 3
    memory = association.start(association.observe(instances([[1.0, 0.0]], [[0, 0, 10, 10]])))
    now = association.observe(instances(queries, [[5, 0, 10, 10], [0, 0, 10, 10], [50, 50, 4, 4]]))
    assert association.similarity(memory, now).tolist()[0] == pytest.approx([1 / 3, 1, 0])
    assert xywh_iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


def test_sort_predicts_motion() -> None:
    """A box that moves by 4 pixels a frame is expected 4 pixels further after a few frames."""
    association = build("sort")
    memory = association.start(association.observe(instances([[1.0, 0.0]], [[0, 0, 10, 20]])))
    for x in range(4, 40, 4):
        memory = association.advance(memory)
        memory = association.update(memory, association.observe(instances([[1.0, 0.0]], [[x, 0, 10, 20]])))
    centre = association.advance(memory)[0][0, :2]
    assert centre.tolist() == pytest.approx([36 + 4 + 5, 10], abs=0.1)
    expected = association.observe(instances([[1.0, 0.0]], [[40, 0, 10, 20]]))
    assert association.similarity(association.advance(memory), expected).item() > 0.95


def test_kalman_filter_by_hand() -> None:
    """First step for the centre x alone: variance 10 + 10^4 + 1 = 10011 after prediction, gain 10011 / 10012."""
    association = Sort()
    start = association.start(torch.tensor([[0.0, 0.0, 10.0, 10.0]]))
    predicted = association.advance(start)
    assert predicted[1][0, 0, 0].item() == pytest.approx(10011)
    mean, covariance = association.update(predicted, torch.tensor([[8.0, 0.0, 10.0, 10.0]]))
    gain = 10011 / 10012
    assert mean[0, 0].item() == pytest.approx(5 + 8 * gain, rel=1e-6)
    assert mean[0, 4].item() == pytest.approx(8 * 10000 / 10012, rel=1e-5)  # covariance of position and speed: 10^4
    assert covariance[0, 0, 0].item() == pytest.approx((1 - gain) * 10011, rel=1e-2)


def test_sort_stops_an_area_from_turning_negative() -> None:
    mean = torch.tensor([[5.0, 5.0, 3.0, 1.0, 0.0, 0.0, -4.0]])
    advanced, _ = Sort().advance((mean, torch.eye(7)[None]))
    assert advanced[0, 2].item() == 3


@pytest.mark.parametrize("kind", get_args(AssociationKind))
def test_rows_are_independent(kind: AssociationKind) -> None:
    """What a track does not depend on its neighbours: rows can be selected and joined freely."""
    association = build(kind)
    boxes = torch.randint(1, 50, (3, 4)).tolist()
    observed = association.observe(instances(torch.randn(3, 2).tolist(), boxes))
    later = association.observe(instances(torch.randn(3, 2).tolist(), boxes[::-1]))

    def run(rows: list[int]) -> tuple[Tensor, ...]:
        memory = association.advance(association.start(observed[rows]))
        return association.update(memory, later[rows])

    for together, alone in zip(run([0, 1, 2]), run([1]), strict=True):
        assert torch.allclose(together[1:2], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", get_args(AssociationKind))
def test_every_kind_has_a_gate_against_unrelated_objects(kind: AssociationKind) -> None:
    assert AssociationConfig(kind=kind).gate == {"sort": 0.3, "iou": 0.3, "rollout": 0.1}.get(kind, 0.2)
    assert AssociationConfig(kind=kind, min_similarity=-1).gate == -1


def test_tokens_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN in 2 of 4 values; the instance tokens or the rollout tokens"):
        assign(torch.tensor([[math.nan, 0.0], [math.nan, 1.0]]), min_similarity=-1)


def test_the_token_is_the_trackers() -> None:
    tracker = RolloutTracker(RolloutTrackerConfig(token="query"), 2)
    observed = build_association(AssociationConfig(), tracker).observe(instances([[0.0, 3.0]]))
    assert observed.tolist() == [[0, 1]]
    with pytest.raises(ValueError, match=r"association.token: .*'query', got 'instance_query'"):
        build_association(AssociationConfig(token="instance_query"), tracker)
    default = build_association(AssociationConfig(kind="hungarian"), None).observe(instances([[0.0, 3.0]]))
    assert default.tolist() == [[1, 0, 0, 1]]


def test_rollout_needs_a_tracker() -> None:
    with pytest.raises(ValueError, match="rollout.*checkpoint"):
        build_association(AssociationConfig(), None)
