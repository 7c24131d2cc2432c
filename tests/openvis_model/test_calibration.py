import math

import pytest
import torch
import torch.nn.functional as F

from openvis_model.calibration import calibrated, calibrated_alone


def test_by_hand() -> None:
    """The reference is (1, 0) and (0, 1), so its mean is (0.5, 0.5), and (1, 0) becomes (0.5, -0.5).

    At scale ln 4, its exponentials over the reference are 2 and 1/2, of mean 1.25; those of the word (0, 1) 1 and 4, of
    mean 2.5. The offset doubles them.
    """
    reference, shown, named = torch.eye(2), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    rows, offset = calibrated(shown, named, reference, math.log(4))
    assert rows.tolist() == [[0.5, -0.5]]
    assert offset.tolist() == pytest.approx([math.log(2)])


def test_exemplars_are_as_likely_as_words_among_objects_of_the_reference() -> None:
    """Whatever pictures have in common."""
    common = 3 * F.normalize(torch.randn(64), dim=0)
    named = F.normalize(torch.randn(5, 64), dim=1)
    shown, reference = (F.normalize(torch.randn(n, 64) * 0.2 + common, dim=1) for n in (3, 100))
    rows, offset = calibrated(shown, named, reference, 20.0)
    level = torch.logsumexp(20.0 * reference @ torch.cat([named, rows]).T + torch.cat([torch.zeros(5), offset]), 0)
    assert level[5:].tolist() == pytest.approx([float(level[:5].mean())] * 3, abs=1e-4)


def test_alone_by_hand() -> None:
    """The reference is (1, 0) and (0, 1) again, and the name's exponentials at scale ln 4 have sum 5.

    The exemplars (1, 0) and (0.6, 0.8) become (0.5, -0.5), whose exponentials 2 and 1/2 have sum 5/2, and (0.1, 0.3),
    whose have sum 4^0.1 + 4^0.3. Both get the mean of the two offsets; objects of the reference keep their own.
    """
    shown, names = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[0.0, 1.0]])
    alone = calibrated_alone(shown, names, torch.eye(2), math.log(4))
    assert alone.rows.flatten().tolist() == pytest.approx([0.5, -0.5, 0.1, 0.3])
    common = (math.log(2) + math.log(5 / (4**0.1 + 4**0.3))) / 2
    assert alone.offset.tolist() == pytest.approx([common, common])
    assert alone.others.tolist() == [[0.0, 1.0], [0.5, -0.5], [-0.5, 0.5]]
    assert alone.others_offset.tolist() == pytest.approx([0, math.log(2), math.log(2)])
