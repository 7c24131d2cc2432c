"""Instances of a batch of frames as bytes, exact to the last bit.

The bytes are an Arrow IPC stream of one record batch with a row per instance, in the order of the frames:

    position         int32            which frame of the batch it is in
    objectness       float32
    instance_token   float32[D]
    query            float32[C]
    query_index      int64
    colour           float32[3]       mean RGB, 0 to 255
    counts           binary           COCO compressed counts of the mask
    area             int64            pixels
    box              int64[4]         x, y, width, height, pixels

Its schema's metadata has `frames`, `height` and `width`: the number of frames and the size of the masks. No frames are
no bytes.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Shaped
from torch import Tensor

from openvis_model.instances import Instances
from openvis_model.rle import RleMasks


def encode_instances(frames: Sequence[Instances]) -> bytes:
    """Returns the bytes of the instances of each frame.

    Raises:
        ValueError: the frames have masks of several sizes.
    """
    if not frames:
        return b""
    masks = [instances.masks for instances in frames]
    sizes = {mask.size for mask in masks}
    if len(sizes) > 1:
        raise ValueError(f"frames: their masks are {sorted(sizes)} pixels high and wide; encode each size on its own")
    ((height, width),) = sizes
    columns = {
        "position": pa.array(np.repeat(np.arange(len(frames), dtype=np.int32), [len(mask) for mask in masks])),
        "objectness": _column([instances.objectness for instances in frames]),
        "instance_token": _column([instances.instance_tokens for instances in frames]),
        "query": _column([instances.queries for instances in frames]),
        "query_index": _column([instances.query_index for instances in frames]),
        "colour": _column([instances.colours for instances in frames]),
        "counts": pa.array([counts for mask in masks for counts in mask.counts], pa.binary()),
        "area": pa.array(np.concatenate([mask.areas for mask in masks])),
        "box": _rows(np.concatenate([mask.boxes for mask in masks])),
    }
    metadata = {"frames": str(len(frames)), "height": str(height), "width": str(width)}
    batch = pa.record_batch(columns, metadata=metadata)
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, batch.schema) as writer:
        writer.write_batch(batch)
    encoded: bytes = stream.getvalue().to_pybytes()
    return encoded


def decode_instances(encoded: bytes) -> list[Instances]:
    """Returns the instances of each frame. Frames share no memory, so that one may be kept without the others."""
    if not encoded:
        return []
    with pa.ipc.open_stream(encoded) as stream:
        batch = stream.read_next_batch()
    metadata = batch.schema.metadata
    size = int(metadata[b"height"]), int(metadata[b"width"])
    starts = np.searchsorted(batch["position"].to_numpy(), np.arange(int(metadata[b"frames"]) + 1))
    objectness, tokens, queries, query_index, colours, areas, boxes = (
        _numpy(batch[name])
        for name in ("objectness", "instance_token", "query", "query_index", "colour", "area", "box")
    )
    counts = batch["counts"].to_pylist()
    return [
        Instances(
            objectness=torch.from_numpy(objectness[i:j].copy()),
            instance_tokens=torch.from_numpy(tokens[i:j].copy()),
            queries=torch.from_numpy(queries[i:j].copy()),
            query_index=torch.from_numpy(query_index[i:j].copy()),
            colours=torch.from_numpy(colours[i:j].copy()),
            masks=RleMasks(size, tuple(counts[i:j]), areas[i:j].copy(), boxes[i:j].copy()),
        )
        for i, j in pairwise(starts.tolist())
    ]


def _column(parts: list[Tensor]) -> pa.Array:
    values = torch.cat(parts).numpy()
    return pa.array(values) if values.ndim == 1 else _rows(values)


def _rows(values: Shaped[np.ndarray, "n d"]) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _numpy(column: pa.Array) -> Shaped[np.ndarray, "n ..."]:
    if isinstance(column, pa.FixedSizeListArray):
        return np.asarray(column.flatten()).reshape(len(column), column.type.list_size)
    return np.asarray(column)
