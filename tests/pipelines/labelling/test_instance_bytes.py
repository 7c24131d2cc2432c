import numpy as np
import pyarrow as pa
import pytest
import torch

from openvis_model.instances import Instances
from openvis_model.rle import encode
from pipelines.labelling.instance_bytes import decode_instances, encode_instances


def instances(n: int, seed: int = 0, size: tuple[int, int] = (6, 8)) -> Instances:
    random = torch.Generator().manual_seed(seed)
    objectness, tokens, queries = (torch.randn(*shape, generator=random) for shape in ((n,), (n, 5), (n, 3)))
    masks = torch.rand(n, *size, generator=random) > 0.5
    index, colours = torch.randperm(100, generator=random)[:n], 255 * torch.rand(n, 3, generator=random)
    return Instances(objectness, tokens, queries, index, colours, encode(masks))


def check_equal(a: Instances, b: Instances) -> None:
    for x, y in (
        (a.objectness, b.objectness),
        (a.instance_tokens, b.instance_tokens),
        (a.queries, b.queries),
        (a.query_index, b.query_index),
        (a.colours, b.colours),
    ):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert x.numpy().tobytes() == y.numpy().tobytes()
    assert a.masks == b.masks
    for x, y in ((a.masks.areas, b.masks.areas), (a.masks.boxes, b.masks.boxes)):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.array_equal(x, y)


@pytest.mark.parametrize("counts", [(), (0,), (3,), (0, 0), (2, 0, 1, 0), (0, 4)], ids=str)
def test_instances_survive_the_bytes(counts: tuple[int, ...]) -> None:
    frames = [instances(n, seed) for seed, n in enumerate(counts)]
    decoded = decode_instances(encode_instances(frames))
    assert len(decoded) == len(frames)
    for a, b in zip(frames, decoded, strict=True):
        check_equal(a, b)


def test_every_bit_of_a_number_survives() -> None:
    frame = instances(4)
    frame.objectness.copy_(torch.tensor([float("nan"), -0.0, 1e-45, float("inf")]))
    (decoded,) = decode_instances(encode_instances([frame]))
    check_equal(frame, decoded)


def test_frames_share_no_memory() -> None:
    """Otherwise a tracker that keeps one frame's tokens would keep, and pickle, those of the whole batch."""
    first, second = decode_instances(encode_instances([instances(2), instances(3)]))
    for tensor, size in ((first.instance_tokens, 2 * 5), (second.queries, 3 * 3), (second.objectness, 3)):
        assert tensor.untyped_storage().nbytes() == 4 * size
    first.instance_tokens.fill_(0)  # and it is writable
    assert second.masks.boxes.base is None or second.masks.boxes.base.nbytes == second.masks.boxes.nbytes


def test_the_bytes_are_an_arrow_stream() -> None:
    with pa.ipc.open_stream(encode_instances([instances(2), instances(1)])) as stream:
        table = stream.read_all()
    assert table["position"].to_pylist() == [0, 0, 1]
    assert {name: str(table.schema.field(name).type) for name in ("objectness", "counts", "area")} == {
        "objectness": "float",
        "counts": "binary",
        "area": "int64",
    }
    assert (table.schema.field("instance_token").type.list_size, table.schema.field("query").type.list_size) == (5, 3)
    assert table.schema.metadata == {b"frames": b"2", b"height": b"6", b"width": b"8"}


def test_masks_of_several_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="frames: their masks are .*; encode each size on its own"):
        encode_instances([instances(1), instances(1, size=(4, 4))])
