"""The loss of mask proposals, against that of transformers' Mask2Former."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerHungarianMatcher, Mask2FormerLoss

from openvis_model.training.config import SetCriterionConfig
from openvis_model.training.set_criterion import SetCriterion
from tests.openvis_model.training.batches import CONFIG, confident, quadrants, random_batch, seeded


class TestAgainstTransformers:
    """One label stands for "object"; the log-odds x become the logits (x, 0)."""

    @staticmethod
    def theirs(config: SetCriterionConfig) -> Mask2FormerLoss:
        hf = Mask2FormerConfig(
            num_labels=1,
            train_num_points=config.num_points,
            oversample_ratio=config.oversample_ratio,
            importance_sample_ratio=config.importance_sample_ratio,
            class_weight=config.class_weight,
            mask_weight=config.mask_weight,
            dice_weight=config.dice_weight,
            no_object_weight=config.no_object_weight,
        )
        return Mask2FormerLoss(hf, weight_dict={})

    @staticmethod
    def class_logits(objectness: Tensor) -> Tensor:
        return torch.stack([objectness, torch.zeros_like(objectness)], dim=-1)

    @pytest.mark.parametrize("importance_sample_ratio", [0.0, 0.75, 1.0])
    @pytest.mark.parametrize("objects", [(2, 3), (7, 1)])
    def test_same_losses_and_gradients(self, importance_sample_ratio, objects):
        config = replace(CONFIG, importance_sample_ratio=importance_sample_ratio)
        masks, objectness, targets = random_batch(objects=objects)
        torch.manual_seed(5)  # the order of the draws is the same
        ours = SetCriterion(config)(masks, objectness, targets).losses
        gradients = torch.autograd.grad(sum(ours.values()), (masks, objectness))

        torch.manual_seed(5)
        criterion, labels = self.theirs(config), [torch.zeros(len(target), dtype=torch.long) for target in targets]
        floats = [target.float() for target in targets]
        layers = [criterion(m, self.class_logits(o), floats, labels) for m, o in zip(masks, objectness, strict=True)]
        theirs = {
            "objectness": sum(config.class_weight * layer["loss_cross_entropy"] for layer in layers),
            "mask": sum(config.mask_weight * layer["loss_mask"] for layer in layers),
            "dice": sum(config.dice_weight * layer["loss_dice"] for layer in layers),
        }
        for name, loss in theirs.items():
            assert torch.allclose(ours[name], loss, rtol=1e-5), name
        expected = torch.autograd.grad(sum(theirs.values()), (masks, objectness))
        for ours_, theirs_ in zip(gradients, expected, strict=True):
            assert torch.allclose(ours_, theirs_, atol=1e-6)

    @pytest.mark.parametrize("objects", [(2, 3), (5, 7), (9, 1)])
    def test_same_matches(self, objects):
        masks, objectness, targets = random_batch(layers=1, objects=objects)
        torch.manual_seed(5)
        ours = SetCriterion(CONFIG)(masks, objectness, targets).matches
        torch.manual_seed(5)
        matcher = Mask2FormerHungarianMatcher(2.0, 5.0, 5.0, num_points=CONFIG.num_points)
        labels = [torch.zeros(len(target), dtype=torch.long) for target in targets]
        theirs = matcher(masks[0], self.class_logits(objectness[0]), [target.float() for target in targets], labels)
        for (query, obj), (their_query, their_object) in zip(ours, theirs, strict=True):
            assert torch.equal(query, their_query)
            assert torch.equal(obj, their_object)

    def test_same_objectness_with_an_empty_frame(self):
        masks = confident(quadrants(0, 1, 2, 3))[None, None].expand(1, 2, -1, -1, -1)
        objectness = torch.randn(1, 2, 4, generator=seeded())
        targets = [quadrants(2, 1), quadrants()]
        ours = SetCriterion(CONFIG)(masks, objectness, targets)
        criterion, labels = self.theirs(CONFIG), [torch.zeros(2, dtype=torch.long), torch.zeros(0, dtype=torch.long)]
        theirs = criterion(masks[0], self.class_logits(objectness[0]), [t.float() for t in targets], labels)
        assert ours.losses["objectness"].item() == pytest.approx(2 * theirs["loss_cross_entropy"].item(), rel=1e-5)
