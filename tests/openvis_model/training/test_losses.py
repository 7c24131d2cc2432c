"""The margin loss and instance classification, against hand-worked numbers."""

from math import log

import pytest
import torch

from openvis_model.training.losses import classification_loss, margin_loss
from tests.openvis_model.training.batches import seeded


class TestMarginLoss:
    # cos((1,0), (0,1)) = 0, cos((1,0), (3,4)) = 3/5, cos((0,1), (3,4)) = 4/5.
    THREE = ((1.0, 0.0), (0.0, 1.0), (3.0, 4.0))

    def test_by_hand(self):
        # Over margin 0.3: 0, 0.3 and 0.5, each pair in both orders: 2 · 0.8 / 6 = 4/15.
        assert margin_loss(torch.tensor([self.THREE]), 0.3).item() == pytest.approx(4 / 15)
        # Over margin -0.5: 0.5, 1.1 and 1.3: 2 · 2.9 / 6.
        assert margin_loss(torch.tensor([self.THREE]), -0.5).item() == pytest.approx(2.9 / 3)

    def test_mean_over_frames(self):
        # The second frame's cosines are 0, -1 and 0: no loss, so the mean halves.
        frames = torch.tensor([self.THREE, ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0))])
        assert margin_loss(frames, 0.3).item() == pytest.approx(2 / 15)

    def test_ignores_length(self):
        queries = torch.randn(2, 4, 8, generator=seeded())
        assert torch.allclose(margin_loss(queries, 0.1), margin_loss(queries * 7, 0.1))

    def test_single_query_has_no_pairs(self):
        query = torch.randn(2, 1, 4, requires_grad=True)
        loss = margin_loss(query, -1.0)
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(query.grad, torch.zeros(2, 1, 4))

    @pytest.mark.parametrize("margin", [-0.5, 0.0, 0.3])
    def test_zero_query_is_safe(self, margin):
        queries = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]], requires_grad=True)
        margin_loss(queries, margin).backward()
        assert torch.equal(queries.grad[0, 0], torch.zeros(2))
        assert queries.grad.isfinite().all()
        assert queries.grad[0, 1].abs().sum() > 0

    def test_gradient_pushes_apart(self):
        queries = torch.tensor([[[1.0, 0.0], [1.0, 0.5]]], requires_grad=True)
        before = margin_loss(queries, 0.3)
        before.backward()
        assert margin_loss(queries.detach() - 0.1 * queries.grad, 0.3) < before


class TestClassificationLoss:
    def test_by_hand(self):
        # I Eᵀ = (1, 0) and scale ln 3 give odds 3 : 1. Name 0 costs ln(4/3), name 1 costs ln 4, their mean is the loss.
        tokens, names = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
        loss = classification_loss(tokens, names, torch.tensor([0, 1]), log(3))
        assert loss.item() == pytest.approx((log(4 / 3) + log(4)) / 2)

    def test_learnable_scale_gets_a_gradient(self):
        scale = torch.tensor(1.0, requires_grad=True)
        classification_loss(torch.tensor([[1.0, 0.0]]), torch.eye(2), torch.tensor([0]), scale).backward()
        # d/ds of -log softmax = p - 1 with p = e / (e + 1).
        assert scale.grad.item() == pytest.approx(-1 / (1 + torch.e))

    def test_names_of_which_nothing_is_known_do_not_compete(self):
        # Equal logits: the loss is the log of the number of names in the softmax, the own one included.
        vocabulary = torch.eye(4).requires_grad_()
        tokens = torch.full((3, 4), 0.5)
        rivals = torch.tensor([[True, True, True, True], [False, False, False, True], [False] * 4])
        loss = classification_loss(tokens, vocabulary, torch.tensor([1, 1, 1]), 7.0, rivals)
        assert loss.item() == pytest.approx((log(4) + log(2) + log(1)) / 3)
        loss.backward()
        # -p of each rival: 1/4 from the first instance, of name 3 also 1/2 from the second. Scale 7, token 1/2, mean.
        assert vocabulary.grad[:, 0].tolist() == pytest.approx([7 / 24, -7 / 6 * (3 / 4 + 1 / 2), 7 / 24, 7 / 8])

    def test_an_instance_with_odds_of_three(self):
        # Of names at 1, ln 3 / ln 3 and far above, the last one is unknown: odds 3 : 1 remain.
        tokens, rivals = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[False, True, False]])
        vocabulary = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
        loss = classification_loss(tokens, vocabulary, torch.tensor([0]), log(3), rivals)
        assert loss.item() == pytest.approx(log(4 / 3))
        assert classification_loss(tokens, vocabulary, torch.tensor([0]), log(3)).item() == pytest.approx(log(7 / 3))

    def test_sigmoid_by_hand(self):
        # Scale ln 3 and bias ln 2: logits ln 6 and ln 2, probabilities 6/7 and 2/3. The first instance is a name 0, and
        # no name 1; the second, the other way round: ln(7/6) + ln 3 and ln 7 + ln(3/2).
        tokens, names = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
        loss = classification_loss(tokens, names, torch.tensor([0, 1]), log(3), logit_bias=log(2))
        assert loss.item() == pytest.approx((log(7 / 6) + log(3) + log(7) + log(3 / 2)) / 2)

    def test_unknown_names_are_left_out_of_sigmoids(self):
        tokens, rivals = torch.tensor([[1.0, 0.0]]), torch.tensor([[False, False]])
        loss = classification_loss(tokens, torch.eye(2), torch.tensor([0]), log(3), rivals, log(2))
        assert loss.item() == pytest.approx(log(7 / 6))

    def test_all_rivals_are_the_plain_loss(self):
        tokens, vocabulary = torch.randn(4, 5, generator=seeded()), torch.randn(6, 5, generator=seeded(1))
        arguments = tokens, vocabulary, torch.tensor([0, 5, 2, 2]), 3.0
        assert classification_loss(*arguments, torch.ones(4, 6, dtype=torch.bool)) == classification_loss(*arguments)

    def test_no_instances_still_carry_a_graph(self):
        projection = torch.randn(4, 3, requires_grad=True)
        tokens = torch.zeros(0, 4) @ projection
        loss = classification_loss(tokens, torch.randn(5, 3), torch.zeros(0, dtype=torch.long), 100.0)
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(projection.grad, torch.zeros(4, 3))
