"""The loss of mask proposals, against hand-worked numbers."""

from dataclasses import replace
from math import inf, log, nan

import pytest
import torch
from torch import Tensor

from openvis_model.training.losses import classification_loss, margin_loss
from openvis_model.training.set_criterion import SetCriterion, SetLosses, _pairwise_costs
from tests.openvis_model.training.batches import CONFIG, confident, quadrants, random_batch, seeded


def total(result: SetLosses) -> Tensor:
    return torch.stack(list(result.losses.values())).sum()


class TestPairwiseCosts:
    def test_by_hand(self):
        # Two points, targets (1, 0) and (1, 1). sigmoid(ln 3) = 3/4, softplus(ln 3) = ln 4, softplus(-ln 3) = ln 4/3.
        bce, dice = _pairwise_costs(
            torch.tensor([[0.0, 0.0], [log(3), log(3)], [log(3), -log(3)]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        )
        expected_bce = [
            [log(2), log(2)],
            [(log(4 / 3) + log(4)) / 2, log(4 / 3)],  # wrong at one point; right at both
            [log(4 / 3), (log(4 / 3) + log(4)) / 2],
        ]
        expected_dice = [
            [1 - (2 * 0.5 + 1) / (1 + 1 + 1), 1 - (2 * 1 + 1) / (1 + 2 + 1)],
            [1 - (2 * 0.75 + 1) / (1.5 + 1 + 1), 1 - (2 * 1.5 + 1) / (1.5 + 2 + 1)],
            [1 - (2 * 0.75 + 1) / (1 + 1 + 1), 1 - (2 * 1 + 1) / (1 + 2 + 1)],
        ]
        assert torch.allclose(bce, torch.tensor(expected_bce))
        assert torch.allclose(dice, torch.tensor(expected_dice))


class TestSetCriterionByHand:
    # Constant maps make the points irrelevant, but for those in the outermost half pixel, where grid_sample fades to
    # zero. On a frame this large none of the few seeded points is there.
    SIZE = 1024

    @staticmethod
    def losses(**arguments) -> SetLosses:
        SIZE = TestSetCriterionByHand.SIZE
        maps = torch.tensor([-log(3), log(3)])[:, None, None].expand(2, SIZE, SIZE)
        criterion = SetCriterion(replace(CONFIG, num_points=4))
        target = torch.ones(1, SIZE, SIZE, dtype=torch.bool)
        objectness = torch.tensor([[[0.0, log(3)]]])
        return criterion(maps[None, None], objectness, [target], generator=seeded(), **arguments)

    @pytest.fixture
    def result(self) -> SetLosses:
        return self.losses()

    def test_match(self, result):
        # Query 1 costs 5 · ln(4/3) + 5 · 1/8 - 2 · 3/4, query 0 costs 5 · ln 4 + 5 · 3/6 - 2 · 1/2: query 1 it is.
        assert [index.tolist() for index in result.matches[0]] == [[1], [0]]

    def test_mask(self, result):
        # softplus(-ln 3) = ln(4/3) at each point, weight 5.
        assert result.losses["mask"].item() == pytest.approx(5 * log(4 / 3), rel=1e-5)

    def test_dice(self, result):
        # p = 3/4 at 4 points, all inside: 1 - (2 · 3 + 1) / (3 + 4 + 1) = 1/8, weight 5.
        assert result.losses["dice"].item() == pytest.approx(5 / 8, rel=1e-5)

    def test_objectness(self, result):
        # Query 1 is an object: -ln 3/4, weight 1. Query 0 is none: -ln 1/2, weight 0.1. Normalised by 1.1; weight 2.
        expected = 2 * (log(4 / 3) + 0.1 * log(2)) / 1.1
        assert result.losses["objectness"].item() == pytest.approx(expected, rel=1e-5)

    def test_unmatched_queries_weigh_less_where_not_every_object_is_annotated(self, result):
        # As above, but query 0 may be on an object: its weight is 0.01, and the normaliser 1.01.
        federated = self.losses(exhaustive=False).losses
        assert federated["objectness"].item() == pytest.approx(2 * (log(4 / 3) + 0.01 * log(2)) / 1.01, rel=1e-5)
        assert federated["mask"] == result.losses["mask"]
        assert federated["dice"] == result.losses["dice"]

    def test_presence_weight_of_a_frame(self):
        criterion = SetCriterion(CONFIG)
        assert criterion.presence_weight(2, 5) == pytest.approx(2 + 3 * 0.1)
        assert criterion.presence_weight(2, 5, exhaustive=False) == pytest.approx(2 + 3 * 0.01)
        assert criterion.presence_weight(7, 5, exhaustive=False) == 5

    def test_layers_are_summed(self):
        # With zero logits bce and objectness are ln 2 per layer, at any point and under any matching.
        masks, objectness, targets = random_batch(layers=3)
        losses = SetCriterion(CONFIG)(masks * 0, objectness * 0, targets).losses
        assert losses["mask"].item() == pytest.approx(3 * 5 * log(2), rel=1e-5)
        assert losses["objectness"].item() == pytest.approx(3 * 2 * log(2), rel=1e-5)


class TestMatching:
    def test_clear_cut_masks(self):
        masks = confident(quadrants(3, 1, 0, 2))[None, None]
        query, obj = SetCriterion(CONFIG)(masks, torch.zeros(1, 1, 4), [quadrants(0, 3)]).matches[0]
        assert query.tolist() == [0, 2]
        assert obj.tolist() == [1, 0]
        assert query.dtype == obj.dtype == torch.long

    def test_each_layer_has_its_own_and_the_last_is_returned(self):
        masks = torch.stack([confident(quadrants(0, 1)), confident(quadrants(1, 0))])[:, None]
        criterion, targets = SetCriterion(CONFIG), [quadrants(0)]
        good = torch.tensor([[[8.0, -8.0]], [[-8.0, 8.0]]])
        result = criterion(masks, good, targets, generator=seeded())
        assert result.matches[0].query_index.tolist() == [1]
        # The objectness follows the query that fits on each layer: nearly no loss. Swapped, it is wrong everywhere.
        assert result.losses["objectness"] < 0.01
        assert criterion(masks, good.flip(0), targets, generator=seeded()).losses["objectness"] > 10

    def test_more_objects_than_queries(self):
        masks = confident(quadrants(3, 1))[None, None].requires_grad_()
        result = SetCriterion(CONFIG)(masks, torch.zeros(1, 1, 2), [quadrants(0, 1, 2, 3)])
        assert result.matches[0].query_index.tolist() == [0, 1]
        assert result.matches[0].object_index.tolist() == [3, 1]
        total(result).backward()
        assert masks.grad.isfinite().all()

    def test_objectness_decides_between_equal_masks(self):
        masks = confident(quadrants(0, 0, 0))[None, None]
        result = SetCriterion(CONFIG)(masks, torch.tensor([[[-1.0, 2.0, 0.0]]]), [quadrants(0)])
        assert result.matches[0].query_index.tolist() == [1]


class TestMatchingOfClips:
    """An object moves from the upper left to the upper right; query 0 stays on the left, query 1 follows it."""

    MASKS = torch.stack([confident(quadrants(0, 0)), confident(quadrants(0, 1))])
    MASKS[:, 1] /= 8  # less sure, so that query 0 is the better one in the first frame
    OBJECTNESS = torch.zeros(2, 2)
    TARGETS = (quadrants(0), quadrants(1))

    def matches(self, objects: list[Tensor] | None, targets: tuple[Tensor, ...] = TARGETS) -> list[list[list[int]]]:
        result = SetCriterion(CONFIG)(
            self.MASKS[None], self.OBJECTNESS[None], targets, generator=seeded(), objects=objects
        )
        return [[index.tolist() for index in match] for match in result.matches]

    def test_frames_on_their_own_take_the_best_query_of_each(self):
        assert self.matches(None) == [[[0], [0]], [[1], [0]]]

    def test_clips_keep_the_query_that_follows(self):
        assert self.matches([torch.tensor([0]), torch.tensor([0])]) == [[[1], [0]], [[1], [0]]]

    def test_other_objects_may_have_other_queries(self):
        assert self.matches([torch.tensor([0]), torch.tensor([1])]) == [[[0], [0]], [[1], [0]]]

    def test_objects_that_are_in_one_frame_alone(self):
        targets = quadrants(2, 0), quadrants(1)  # object 0 is in the first frame only, object 1 follows
        assert self.matches([torch.tensor([0, 1]), torch.tensor([1])], targets) == [[[0, 1], [0, 1]], [[1], [0]]]
        nothing = torch.zeros(0, 16, 16, dtype=torch.bool)
        assert self.matches([torch.tensor([3]), torch.tensor([], dtype=torch.long)], (quadrants(0), nothing)) == [
            [[0], [0]],
            [[], []],
        ]

    def test_more_objects_than_queries(self):
        objects = [torch.tensor([0, 1, 2]), torch.tensor([1])]
        matches = self.matches(objects, (quadrants(2, 0, 3), quadrants(1)))
        assert matches[1] == [[1], [0]]
        assert len(matches[0][0]) == 2
        assert 1 in matches[0][1]


class TestEmptyFrames:
    @pytest.mark.parametrize("objects", [(0, 3), (2, 0), (0, 0)])
    def test_finite_with_gradients(self, objects):
        masks, objectness, targets = random_batch(objects=objects)
        result = SetCriterion(CONFIG)(masks, objectness, targets)
        total(result).backward()
        assert [len(match.query_index) for match in result.matches] == list(objects)
        assert total(result).isfinite()
        assert masks.grad.isfinite().all()
        assert objectness.grad.abs().min() > 0
        for frame, M in enumerate(objects):
            assert (masks.grad[:, frame].abs().sum() > 0) == (M > 0)

    def test_a_batch_without_objects_only_has_objectness(self):
        masks, objectness, targets = random_batch(layers=1, objects=(0, 0))
        losses = SetCriterion(CONFIG)(masks, torch.zeros_like(objectness), targets).losses
        assert losses["mask"].item() == losses["dice"].item() == 0
        # All are "no object" at p = 1/2: the mean is ln 2 whatever no_object_weight is.
        assert losses["objectness"].item() == pytest.approx(2 * log(2))


class TestSampling:
    def test_generator_reproduces(self):
        masks, objectness, targets = random_batch()
        before = torch.random.get_rng_state()
        one, same, other = (
            total(SetCriterion(CONFIG)(masks, objectness, targets, generator=seeded(s))) for s in (1, 1, 2)
        )
        assert one == same
        assert one != other
        assert torch.equal(before, torch.random.get_rng_state())

    def test_points_gather_on_the_outline(self):
        # A ramp from -8 to 8 whose outline is the middle column. All 64 points are the least certain of 640.
        ramp = torch.linspace(-8, 8, 64).expand(1, 1, 64, 64)
        criterion = SetCriterion(replace(CONFIG, oversample_ratio=10.0, importance_sample_ratio=1.0))
        # Away from the top and bottom edges, where maps fade to 0 as well.
        x, y = criterion._hard_points(ramp, seeded())[0].unbind(dim=-1)
        inner = (y > 1 / 64) & (y < 63 / 64)
        assert inner.sum() > 40
        assert (x[inner] - 0.5).abs().max() < 0.1

    def test_targets_at_any_resolution_and_type(self):
        masks = confident(quadrants(0, 1))[None, None].expand(1, 2, -1, -1, -1)
        criterion, objectness = SetCriterion(CONFIG), torch.zeros(1, 2, 2)
        plain = [quadrants(1, size=64), quadrants(0, 1, size=32)]
        as_bytes = [mask.to(torch.uint8) * 255 for mask in plain]
        one = criterion(masks, objectness, plain, generator=seeded())
        same = criterion(masks, objectness, as_bytes, generator=seeded())
        assert one.losses == same.losses
        assert [match.query_index.tolist() for match in one.matches] == [[1], [0, 1]]

    def test_layers_may_be_a_sequence(self):
        masks, objectness, targets = random_batch()
        stacked = SetCriterion(CONFIG)(masks, objectness, targets, generator=seeded())
        listed = SetCriterion(CONFIG)(list(masks), list(objectness), targets, generator=seeded())
        assert stacked.losses == listed.losses


class TestNormaliser:
    def test_num_masks(self):
        masks, objectness, targets = random_batch()

        def losses(num_masks):
            criterion = SetCriterion(CONFIG)
            return criterion(masks, objectness, targets, generator=seeded(), num_masks=num_masks).losses

        own, ten, quarter = losses(None), losses(10.0), losses(0.25)
        for name in ("mask", "dice"):
            assert ten[name].item() == pytest.approx(own[name].item() * 5 / 10, rel=1e-5)  # the batch has 2 + 3 masks
            # Of four workers, three may have no mask at all: each divides by a quarter of the only one.
            assert quarter[name].item() == pytest.approx(own[name].item() * 5 / 0.25, rel=1e-5)
        assert own["objectness"] == ten["objectness"] == quarter["objectness"]


class TestGradients:
    def test_masks_of_matched_queries_and_objectness_of_all(self):
        masks, objectness, targets = random_batch(layers=1)
        result = SetCriterion(CONFIG)(masks, objectness, targets, generator=seeded())
        total(result).backward()
        for frame, match in enumerate(result.matches):
            learns = masks.grad[0, frame].abs().sum(dim=(1, 2)) > 0
            assert learns.nonzero()[:, 0].tolist() == match.query_index.tolist()
            # A step downhill raises matched queries and lowers the others.
            assert torch.equal(objectness.grad[0, frame] < 0, learns)

    def test_descending_learns_the_masks(self):
        masks, objectness, targets = torch.zeros(1, 1, 3, 16, 16), torch.zeros(1, 1, 3), [quadrants(0, 3)]
        masks += 0.1 * torch.randn(masks.shape, generator=seeded())
        optimiser = torch.optim.Adam([masks.requires_grad_(), objectness.requires_grad_()], lr=0.3)
        criterion, generator = SetCriterion(CONFIG), seeded()
        for _ in range(60):
            optimiser.zero_grad()
            result = criterion(masks, objectness, targets, generator=generator)
            total(result).backward()
            optimiser.step()
        query, obj = result.matches[0]
        assert ((masks[0, 0, query] > 0) == targets[0][obj]).float().mean() > 0.95
        assert (objectness[0, 0] > 0).sum() == 2

    def test_float32_under_autocast(self):
        masks, objectness, targets = random_batch()
        queries, names = torch.randn(2, 4, 8, generator=seeded()), torch.randn(3, 8, generator=seeded(1))

        def losses() -> list[Tensor]:
            proposal = SetCriterion(CONFIG)(masks, objectness, targets, generator=seeded())
            naming = classification_loss(queries[0], names, torch.tensor([0, 1, 2, 0]), 10.0)
            return [*proposal.losses.values(), margin_loss(queries, 0.1), naming]

        plain = losses()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert losses() == plain
            # Both logits are 1 in bfloat16; only float32 sees that the second query fits the full frame better.
            maps = torch.tensor([1.0, 1.002])[:, None, None].expand(1, 1, 2, 64, 64)
            full = torch.ones(1, 64, 64, dtype=torch.bool)
            assert SetCriterion(CONFIG)(maps, torch.zeros(1, 1, 2), [full]).matches[0].query_index.tolist() == [1]
        halves = SetCriterion(CONFIG)(masks.bfloat16(), objectness.bfloat16(), targets)
        assert halves.losses["mask"].dtype == torch.float32


class TestRefusals:
    @pytest.mark.parametrize("value", [nan, inf, -inf])
    @pytest.mark.parametrize("objects", [(2, 3), (0, 0)])
    def test_bad_objectness(self, value, objects):
        masks, objectness, targets = random_batch(objects=objects)
        objectness.data[1, 0, 2] = value
        with pytest.raises(ValueError, match=r"objectness .* training diverged"):
            SetCriterion(CONFIG)(masks, objectness, targets)

    @pytest.mark.parametrize("value", [nan, inf, -inf, 3e38])
    def test_bad_masks(self, value):
        masks, objectness, targets = random_batch()
        masks.data[1, 0, 2] = value
        with pytest.raises(ValueError, match=r"mask cost .* training diverged"):
            SetCriterion(CONFIG)(masks, objectness, targets)

    def test_layers_disagree(self):
        masks, objectness, targets = random_batch(layers=2)
        with pytest.raises(ValueError, match="2 layers of masks but 1 of objectness"):
            SetCriterion(CONFIG)(list(masks), list(objectness[:1]), targets)

    def test_frames_disagree(self):
        masks, objectness, targets = random_batch()
        with pytest.raises(ValueError, match="2 frames but 1 targets"):
            SetCriterion(CONFIG)(masks, objectness, targets[:1])
