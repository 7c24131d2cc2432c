import torch

from openvis_model.instances import Instances


def assert_same(a: list[Instances], b: list[Instances]) -> None:
    """Checks that two models found the same in each frame."""
    assert [len(frame) for frame in a] == [len(frame) for frame in b]
    for one, other in zip(a, b, strict=True):
        assert one.masks == other.masks
        assert torch.equal(one.query_index, other.query_index)
        for name in ("objectness", "instance_tokens", "queries"):
            assert torch.allclose(getattr(one, name), getattr(other, name), atol=1e-5), name
        assert torch.allclose(one.colours, other.colours, atol=1e-2)
