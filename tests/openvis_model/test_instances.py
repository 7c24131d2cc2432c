import pytest
import torch

from openvis_model.instances import tracking_tokens


def test_tracking_token_by_hand() -> None:
    """(3, 4) has norm 5 and (0, 0, 2) norm 2: each part has norm 1 in the token."""
    tokens = tracking_tokens(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0, 2.0]]), "instance_query")
    assert tokens.tolist()[0] == pytest.approx([0.6, 0.8, 0, 0, 1])
    assert tracking_tokens(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0, 2.0]]), "query").tolist() == [[0, 0, 1]]
