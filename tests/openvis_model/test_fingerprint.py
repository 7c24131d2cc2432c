import pytest
import torch

from openvis_model.fingerprint import tensor_fingerprint


def test_same_content_same_fingerprint() -> None:
    a, b = torch.arange(6.0).view(2, 3), torch.ones(4, dtype=torch.bfloat16)
    first = tensor_fingerprint({"a": a, "b": b})
    assert first == tensor_fingerprint({"b": b.clone(), "a": a.mT.contiguous().mT})
    assert len(first) == 64


@pytest.mark.parametrize(
    "other",
    [
        {"a": torch.zeros(2, 3), "c": torch.zeros(())},
        {"a": torch.zeros(3, 2), "b": torch.zeros(())},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.zeros(())},
        {"a": torch.tensor([[0, 0, 0], [0, 0, 1e-30]]), "b": torch.zeros(())},
    ],
    ids=["name", "shape", "dtype", "bits"],
)
def test_any_difference_shows(other: dict[str, torch.Tensor]) -> None:
    assert tensor_fingerprint({"a": torch.zeros(2, 3), "b": torch.zeros(())}) != tensor_fingerprint(other)
