import pytest
import torch

from openvis_model.training.box_loss import box_losses, boxes_of
from openvis_model.training.config import SetCriterionConfig
from openvis_model.training.set_criterion import SetCriterion

MASKS = torch.zeros(2, 10, 20)
MASKS[0, 2:6, 10:20] = 1  # x 10 to 20 of 20, y 2 to 6 of 10
MASKS[1, 9, 0] = 1
BOXES = torch.tensor([[0.75, 0.4, 0.5, 0.4], [0.025, 0.95, 0.05, 0.1]])


def test_boxes_of_masks_by_hand() -> None:
    torch.testing.assert_close(boxes_of(MASKS), BOXES)
    assert boxes_of(MASKS[:0]).shape == (0, 4)


def pair(query: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([query]), torch.tensor([number])


def test_a_box_that_fits_has_no_loss() -> None:
    assert box_losses(BOXES[None], [MASKS], [pair(1, 1)]).tolist() == pytest.approx(
        [0, 0], abs=1e-4
    )  # the library adds 1e-7 to areas


def test_losses_by_hand() -> None:
    """The left half of the object's box: 0.125 and 0.25 apart in x and width; half of the union, which is the hull."""
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 1.0], [0.625, 0.4, 0.25, 0.4]]])
    assert box_losses(boxes, [MASKS], [pair(1, 0)]).tolist() == pytest.approx([0.375, 0.5], abs=1e-5)


def test_boxes_that_do_not_touch_are_pulled_together() -> None:
    boxes = torch.tensor([[[0.1, 0.1, 0.1, 0.1]]], requires_grad=True)
    _, giou = box_losses(boxes, [MASKS], [pair(0, 0)])
    assert giou > 1
    giou.backward()
    assert (boxes.grad[0, 0, :2] < 0).all()  # a step to the right and down, where the object is


def test_frames_without_objects() -> None:
    none = torch.zeros(0, dtype=torch.long)
    assert box_losses(BOXES[None], [MASKS[:0]], [(none, none)]).tolist() == [0, 0]


def test_the_criterion_weighs_them_and_sums_over_layers() -> None:
    """Two layers with the box of `test_losses_by_hand`, one with the object's own: 5 · 0.375 + 2 · 0.5, twice."""
    config = SetCriterionConfig(num_points=32)
    masks = [torch.where(MASKS[:1] > 0, 9.0, -9.0)[None]] * 3
    wrong = torch.tensor([[[0.625, 0.4, 0.25, 0.4]]])
    objectness = [torch.zeros(1, 1)] * 3
    targets = [MASKS[:1].bool()]
    losses, _ = SetCriterion(config)(masks, objectness, targets, boxes=[wrong, BOXES[None, :1], wrong])
    assert losses["box"].item() == pytest.approx(2 * (5 * 0.375 + 2 * 0.5), abs=1e-4)
    assert "box" not in SetCriterion(config)(masks, objectness, targets).losses
    halved, _ = SetCriterion(config)(masks, objectness, targets, boxes=[wrong] * 3, num_masks=2)
    assert halved["box"].item() == pytest.approx(1.5 * (5 * 0.375 + 2 * 0.5), abs=1e-4)
