import pytest
import torch
from torch import nn

from openvis_model.guided_attention import (
    MULTIHEAD,
    PROJECTIONS,
    GuidedPool,
    InstanceGuidanceAttention,
    SplitAttention,
    rotated,
    split_state,
)


class Layer(nn.Module):
    """A tower with one attention layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attn: nn.Module = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)


def test_a_split_layer_is_fused_again_as_it_was() -> None:
    tower = Layer()
    before = {name: tensor.clone() for name, tensor in tower.state_dict().items()}
    tower.attn = InstanceGuidanceAttention(tower.attn)
    after = split_state(tower)
    assert set(after) == set(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_weights_that_a_layer_lacks_are_left_out() -> None:
    layer = SplitAttention(nn.MultiheadAttention(8, 2, bias=False), MULTIHEAD)
    assert set(layer.fused()) == {"in_proj_weight", "out_proj.weight"}
    assert all(getattr(layer, name).bias is None for name in PROJECTIONS)


def test_patches_alone_are_rotated_by_hand() -> None:
    """A quarter turn of (x0, x1) is (-x1, x0); the first patch is missing, the last token is none."""
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    sine, cosine = torch.tensor([[9.0, 9.0], [1.0, 1.0]]), torch.tensor([[9.0, 9.0], [0.0, 0.0]])
    assert rotated(x, (sine, cosine), 2, 1).tolist() == [[[[-2.0, 1.0], [3.0, 4.0]]]]


class Pool(nn.Module):
    """A head of width 1 whose projections are the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 1
        self.latent = nn.Parameter(torch.zeros(1, 1, 1))
        self.norm, self.mlp = nn.Identity(), nn.Identity()
        for name in PROJECTIONS:
            layer = nn.Linear(1, 1, bias=False)
            nn.init.ones_(layer.weight)
            setattr(self, name, layer)


@pytest.fixture
def pool() -> GuidedPool:
    return GuidedPool(Pool(), {f"{name}.weight": (f"{name}.weight",) for name in PROJECTIONS})


def test_pooling_by_hand(pool: GuidedPool) -> None:
    """Probes 1 and 0 look at patches 1 and 2; the block behind them doubles.

    With guidance (0, -inf) only patch 1 is seen: 2. A probe of 0 sees both alike, 1.5: 3. With a token 6 of its own, it
    sees (1 + 2 + 6) / 3 = 3: 6.
    """
    patches, inf = torch.tensor([[[1.0], [2.0]]]), float("inf")
    guidance = torch.tensor([[[0.0, -inf], [0.0, 0.0]]])
    probes = torch.tensor([[[1.0], [0.0]]])
    assert pool(probes, patches, guidance, None).flatten().tolist() == pytest.approx([2, 3])
    own = torch.tensor([[[-1e4], [6.0]]])
    assert pool(probes, patches, guidance, own).flatten().tolist() == pytest.approx([2, 6])


def test_a_probe_that_is_guided_nowhere_sees_all_patches_or_its_own_token(pool: GuidedPool) -> None:
    patches, nowhere = torch.tensor([[[1.0], [2.0]]]), torch.full((1, 1, 2), -float("inf"))
    probe = torch.zeros(1, 1, 1)
    assert pool(probe, patches, nowhere, None).item() == pytest.approx(3)
    assert pool(probe, patches, nowhere, torch.full((1, 1, 1), 5.0)).item() == pytest.approx(10)
