import torch
from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

from openvis_model.folded.deformable_attention import Grid, sample, sample_on_gpu, sample_rows

SIZES = ((2, 3), (4, 6))
DOUBLE = torch.zeros(1, dtype=torch.float64)
GRID = Grid.of(SIZES, DOUBLE)


def test_grid_by_hand() -> None:
    """The first place of a 2 × 3 map is the point (1/6, 1/4) of the frame: (0.5, 0.5) on a map of 4 × 6 pixels."""
    assert GRID.sizes.tolist() == [[3, 2], [6, 4]]
    assert GRID.starts.tolist() == [0, 6]
    assert GRID.places.shape == (30, 2, 2)
    torch.testing.assert_close(GRID.places[0], torch.tensor([[0.0, 0], [0.5, 0.5]]).double())
    torch.testing.assert_close(GRID.places[5], torch.tensor([[2.0, 1], [4.5, 2.5]]).double())
    torch.testing.assert_close(GRID.places[6], torch.tensor([[-0.25, -0.25], [0.0, 0]]).double())


def one_sample(x: float, y: float, *, level: int) -> float:
    """The sum at the first place if it looks at one point only; the value of place i is i + 1."""
    value = torch.arange(1.0, 31.0).double().view(1, 30, 1, 1)
    where, attention = torch.zeros(1, 30, 1, 2, 1, 2).double(), torch.zeros(1, 30, 1, 2, 1).double()
    where[0, 0, 0, level, 0] = torch.tensor([x, y])
    attention[0, 0, 0, level] = 1
    return float(sample(value, where, attention, GRID)[0, 0, 0])


def test_samples_by_hand() -> None:
    """The maps hold 1 2 3 | 4 5 6 and 7 … 30, six to a row."""
    assert one_sample(1, 0, level=0) == 2
    assert one_sample(0.25, 0.5, level=0) == 2.75  # 0.75 (1 + 4) / 2 + 0.25 (2 + 5) / 2
    assert one_sample(5, 3, level=1) == 30
    assert one_sample(-0.5, 0, level=0) == 0.5  # half outside
    assert one_sample(2.5, 1.5, level=0) == 1.5  # a quarter of the last corner
    assert one_sample(-1, 0, level=0) == one_sample(3, 1, level=0) == one_sample(1e9, -1e9, level=1) == 0


def test_samples_are_those_of_transformers() -> None:
    value = torch.randn(2, 30, 4, 8, dtype=torch.float64)
    where = GRID.places[:, None, :, None] + 4 * torch.randn(2, 30, 4, 2, 3, 2, dtype=torch.float64)
    attention = torch.rand(2, 30, 4, 2, 3, dtype=torch.float64)
    fractions = (where + 0.5) / GRID.sizes[:, None]
    expected = multi_scale_deformable_attention(value, list(SIZES), fractions, attention)
    torch.testing.assert_close(sample(value, where, attention, GRID), expected, rtol=0, atol=1e-12)


def test_what_runs_on_a_gpu_is_one_operation_to_torch_compile() -> None:
    """Here, where there is no kernel, it is the plain form."""
    grid = Grid.of(SIZES, torch.zeros(1))
    where = grid.places[:, None, :, None] + torch.randn(2, 30, 4, 2, 3, 2)
    given = torch.randn(2, 30, 4, 8), where, torch.rand(2, 30, 4, 2, 3), grid.sizes, grid.starts
    torch.library.opcheck(sample_on_gpu, given)
    compiled = torch.compile(sample_on_gpu, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*given), sample_rows(*given))
