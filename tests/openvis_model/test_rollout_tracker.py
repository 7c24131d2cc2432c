import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from openvis_model.options import RolloutTrackerConfig, TrackerKind
from openvis_model.rollout_tracker import RolloutTracker, rollout_loss


def tracker(kind: TrackerKind, width: int = 2) -> RolloutTracker:
    return RolloutTracker(RolloutTrackerConfig(kind=kind), width)


def identity_tracker() -> RolloutTracker:
    """A linear tracker that predicts that nothing changes."""
    model = tracker("linear")
    with torch.no_grad():
        model.predictor.weight.copy_(torch.eye(2))
        model.predictor.bias.zero_()
    return model


def annotated(tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Arguments of `rollout_loss` if the objects' own tokens are the only candidates: token i is that of object i."""
    return tokens, present, torch.arange(tokens.shape[2]).expand(present.shape), present


def test_rnn_by_hand() -> None:
    """Eq. 5: h_1 = tanh(W T_0 + U h_0 + b), and the prediction is the hidden state.

    W = diag(1, 2), U = 0.5 · I, b = (0.1, 0): T_0 = (0.2, 0.3), h_0 = 0 gives tanh(0.3), tanh(0.6); then
    T_1 = (0, 1) gives tanh(0 + 0.5 · tanh(0.3) + 0.1), tanh(2 + 0.5 · tanh(0.6)).
    """
    model = tracker("rnn")
    with torch.no_grad():
        model.predictor.weight_ih.copy_(torch.diag(torch.tensor([1.0, 2.0])))
        model.predictor.weight_hh.copy_(0.5 * torch.eye(2))
        model.predictor.bias_ih.copy_(torch.tensor([0.1, 0.0]))
        model.predictor.bias_hh.zero_()
    prediction, hidden = model(torch.tensor([[0.2, 0.3]]), model.initial_state(1))
    assert prediction.tolist()[0] == pytest.approx([math.tanh(0.3), math.tanh(0.6)])
    prediction, hidden = model(torch.tensor([[0.0, 1.0]]), hidden)
    expected = [math.tanh(0.5 * math.tanh(0.3) + 0.1), math.tanh(2 + 0.5 * math.tanh(0.6))]
    assert prediction.tolist()[0] == pytest.approx(expected)
    assert torch.equal(prediction, hidden)


@pytest.mark.parametrize("kind", get_args(TrackerKind))
def test_every_kind_keeps_tracks_apart(kind: TrackerKind) -> None:
    model = tracker(kind, width=4)
    tokens = torch.randn(3, 4)
    state = model.initial_state(3)
    together, states = model(tokens, state)
    alone, _ = model(tokens[1:2], state[1:2])
    assert (together[1:2] - alone).abs().max() < 1e-6
    assert states.shape == (3, 4 if kind in ("rnn", "gru") else 0)


def test_loss_by_hand() -> None:
    """Eq. 6 with a predictor that repeats the last token, two objects, two frames, temperature 0.5.

    Frame 0: (1, 0) and (0, 1). Frame 1: (1, 0) and (0.6, 0.8). Cosines of object 0: 1 and 0.6, of object 1: 0 and
    0.8; divided by 0.5: (2, 1.2) and (0, 1.6). Losses: ln(1 + e^-0.8) = 0.371101 and ln(1 + e^-1.6) = 0.183905.
    """
    tokens = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.6, 0.8]]]])
    present = torch.ones(1, 2, 2, dtype=torch.bool)
    loss = rollout_loss(identity_tracker(), *annotated(tokens, present), temperature=0.5)
    assert loss.item() == pytest.approx((0.371101 + 0.183905) / 2, abs=1e-5)


def test_one_object_among_all_tokens_of_a_frame_by_hand() -> None:
    """The object is token 2 of frame 0, (1, 0), and token 0 of frame 1; two other tokens of frame 1 are negatives.

    Their cosines with the prediction (1, 0) are 1, 0 and 0.6; divided by 0.5: 2, 0 and 1.2. The loss is
    ln(1 + e^-2 + e^-0.8) = 0.460372, and the probabilities of the negatives are 0.085403 and 0.283548. A cosine of 0
    or 0.6 changes with the second component of the prediction by 1 and 0.8, so its gradient, which is that of the
    bias, is (0.085403 + 0.8 · 0.283548) / 0.5 = 0.624483.
    """
    tokens = torch.tensor([[[[0.0, 1.0], [0.6, 0.8], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]]])
    candidates, present = torch.ones(1, 2, 3, dtype=torch.bool), torch.ones(1, 2, 1, dtype=torch.bool)
    token_index, model = torch.tensor([[[2], [0]]]), identity_tracker()
    loss = rollout_loss(model, tokens, candidates, token_index, present, temperature=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(0.460372, abs=1e-5)
    assert model.predictor.bias.grad.tolist() == pytest.approx([0, 0.624483], abs=1e-5)


def test_one_object_alone_teaches_nothing() -> None:
    """Among itself alone, an object is certain to be found."""
    model = identity_tracker()
    tokens = torch.tensor([[[[1.0, 0.0]], [[0.6, 0.8]]]])
    loss = rollout_loss(model, *annotated(tokens, torch.ones(1, 2, 1, dtype=torch.bool)), temperature=0.5)
    loss.backward()
    assert loss.item() == 0
    assert not any(parameter.grad.any() for parameter in model.parameters())


def test_loss_bridges_absence_by_hand() -> None:
    """Object 1 is away in frame 1 and back in frame 2, where it is predicted from frame 0.

    Frame 1 has one candidate, so object 0 costs ln 1 = 0. Frame 2 has both: object 0 predicts (1, 0) against (1, 0)
    and (0, 1): ln(1 + e^-2) = 0.126928, object 1 predicts (0, 1) against the same: 0.126928. Three predictions.
    """
    tokens = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [9.0, 9.0]], [[1.0, 0.0], [0.0, 1.0]]]])
    present = torch.tensor([[[True, True], [True, False], [True, True]]])
    loss = rollout_loss(identity_tracker(), *annotated(tokens, present), temperature=0.5)
    assert loss.item() == pytest.approx(2 * 0.126928 / 3, abs=1e-5)


def test_loss_of_an_object_that_appears_late_by_hand() -> None:
    """Object 1 comes in frame 1, where nothing predicts it; each of the three predictions costs ln(1 + e^-2)."""
    tokens = torch.eye(2).expand(1, 3, 2, 2)
    present = torch.tensor([[[True, False], [True, True], [True, True]]])
    loss = rollout_loss(identity_tracker(), *annotated(tokens, present), temperature=0.5)
    assert loss.item() == pytest.approx(0.126928, abs=1e-5)


def test_absent_tokens_may_be_nan() -> None:
    model = tracker("rnn")
    tokens = torch.randn(1, 3, 2, 2)
    tokens[0, 1, 1] = torch.nan
    tokens.requires_grad_()
    present = torch.tensor([[[True, True], [True, False], [True, True]]])
    rollout_loss(model, *annotated(tokens, present), temperature=0.1).backward()
    for gradient in (tokens.grad, *(parameter.grad for parameter in model.parameters())):
        assert gradient is not None
        assert gradient.isfinite().all()


def test_loss_is_float32_under_autocast() -> None:
    model, tokens = tracker("rnn"), torch.randn(1, 3, 2, 2)
    present = torch.ones(1, 3, 2, dtype=torch.bool)
    exact = rollout_loss(model, *annotated(tokens, present), temperature=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = rollout_loss(model, *annotated(tokens, present), temperature=0.1)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, exact)


def test_temperature_must_be_positive() -> None:
    with pytest.raises(ValueError, match="temperature: .*got 0"):
        rollout_loss(tracker("rnn"), *annotated(torch.randn(1, 2, 1, 2), torch.ones(1, 2, 1) > 0), temperature=0)


@pytest.mark.parametrize("kind", get_args(TrackerKind))
def test_padding_and_absent_tokens_change_nothing(kind: TrackerKind) -> None:
    model = tracker(kind, width=4)
    tokens, present = torch.randn(2, 5, 3, 4), torch.rand(2, 5, 3) < 0.7
    loss = rollout_loss(model, *annotated(tokens, present), temperature=0.1)
    padded = torch.cat([tokens, torch.full((2, 5, 2, 4), 1e3)], dim=2)
    noise = torch.where(torch.nn.functional.pad(present, (0, 2))[..., None], padded, torch.randn(2, 5, 5, 4))
    same = rollout_loss(model, *annotated(noise, torch.nn.functional.pad(present, (0, 2))), temperature=0.1)
    assert same.item() == pytest.approx(loss.item(), rel=1e-5)


def test_the_order_of_tokens_changes_nothing() -> None:
    model = tracker("rnn", width=4)
    tokens, candidates, present = torch.randn(2, 5, 6, 4), torch.ones(2, 5, 6) > 0, torch.rand(2, 5, 3) < 0.7
    token_index = torch.rand(2, 5, 6).argsort(-1)[..., :3]
    loss = rollout_loss(model, tokens, candidates, token_index, present, temperature=0.1)
    place = torch.rand(2, 5, 6).argsort(-1)  # new place of each token
    moved = torch.empty_like(tokens).scatter_(2, place[..., None].expand_as(tokens), tokens)
    moved_index = place.take_along_dim(token_index, dim=2)
    same = rollout_loss(model, moved, candidates, moved_index, present, temperature=0.1)
    assert same.item() == pytest.approx(loss.item(), rel=1e-5)


def test_nothing_to_predict_gives_zero_with_a_graph() -> None:
    model = tracker("rnn")
    loss = rollout_loss(model, *annotated(torch.randn(1, 3, 2, 2), torch.zeros(1, 3, 2) > 0), temperature=0.1)
    assert loss.item() == 0
    loss.backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_training_learns_to_predict_a_rotation() -> None:
    """Objects rotate by 40 degrees a frame, so the last token is nearest to a neighbour: only a prediction can win."""
    angles = torch.arange(9) * 2 * math.pi / 9
    turned = angles + torch.arange(6)[:, None] * 2 * math.pi / 9
    tokens = torch.stack([turned.cos(), turned.sin()], dim=-1)[None]
    present = torch.ones(1, 6, 9, dtype=torch.bool)
    model = tracker("rnn")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    first = rollout_loss(model, *annotated(tokens, present), temperature=0.1).item()
    for _ in range(300):
        optimizer.zero_grad()
        loss = rollout_loss(model, *annotated(tokens, present), temperature=0.1)
        loss.backward()
        optimizer.step()
    still = rollout_loss(identity_tracker(), *annotated(tokens, present), temperature=0.1).item()
    assert loss.item() < 0.5 * min(first, still)
