import pytest
import torch

from openvis_model.proposals import collapse


def test_collapse_by_hand() -> None:
    """Logits ln 2, ln 3 for two classes and ln 5 for no object: p(object) = (2 + 3) / (2 + 3 + 5) = 1/2."""
    logits = torch.tensor([2.0, 3.0, 5.0]).log()
    assert collapse(logits).item() == pytest.approx(0, abs=1e-6)
    assert collapse(torch.tensor([0.0, -2.0])).sigmoid().item() == pytest.approx(1 / (1 + torch.e**-2), rel=1e-6)
