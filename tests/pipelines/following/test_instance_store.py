import numpy as np
import pytest

from openvis_model.shots import GRID
from pipelines.following.instance_store import InstanceStore
from pipelines.labelling.instance_bytes import encode_instances
from pipelines.labelling.rows import LabelledRow
from tests.openvis_model.squares import A, B, C, frame

FRAMES = [frame(A), frame(), frame(A, B), frame(B), frame(A, B, C)]
INDICES = [0, 2, 4, 6, 8]


def thumbnail(bright: int, seed: int) -> np.ndarray:
    """Noise of one brightness; of another seed, it is a cut away."""
    return np.random.default_rng(seed).integers(0, bright, (GRID, GRID, 3)).astype(np.uint8)


def store(thumbnails: list[np.ndarray] | None = None) -> InstanceStore:
    """Five frames in batches of two, as a decoder hands them on."""
    made = InstanceStore()
    for start in range(0, 5, 2):
        seen = (thumbnails or [])[start : start + 2]
        made.add(
            LabelledRow(
                video_id="v",
                uri="/v.mp4",
                frame=np.array(INDICES[start : start + 2]),
                time_s=np.array(INDICES[start : start + 2]) / 8,
                instances=encode_instances(FRAMES[start : start + 2]),
                thumbnails=b"".join(each.tobytes() for each in seen),
                model_s=0.25,
            )
        )
    return made


@pytest.mark.parametrize("positions", [range(5), range(4, -1, -1), range(1, 4), range(3, 0, -1), range(0)])
def test_frames_are_read_in_both_directions(positions: range) -> None:
    read = list(store().instances(positions))
    assert [each.masks for each in read] == [FRAMES[position].masks for position in positions]


def test_frames_have_positions() -> None:
    made = store()
    assert (len(made), made.model_s) == (5, 0.75)
    assert [made.position(index) for index in (0, 4, 8)] == [0, 2, 4]
    assert made.position(3) is made.position(9) is None
    assert InstanceStore().position(0) is None
    batches = list(made.batches())
    assert [(start, frames.tolist(), times.tolist()) for start, frames, times, _ in batches] == [
        (0, [0, 2], [0, 0.25]),
        (2, [4, 6], [0.5, 0.75]),
        (4, [8], [1.0]),
    ]
    assert [each.masks for _, _, _, found in batches for each in found] == [each.masks for each in FRAMES]


def test_shots_are_between_cuts() -> None:
    one, other = thumbnail(255, 0), thumbnail(90, 1)
    made = store([one, one, one, other, other])
    assert [made.shot(position) for position in range(5)] == [range(3)] * 3 + [range(3, 5)] * 2
    assert [(shot["first_frame"], shot["last_frame"]) for shot in made.shots] == [(0, 4), (6, 8)]
    assert store().shot(3) == range(5)
    assert store().shots == []
