from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from openvis_model.video_frames import Frames, batches

VIDEO = np.arange(11 * 4 * 6 * 3, dtype=np.uint8).reshape(11, 4, 6, 3)


def lengths(source: object, size: int = 4) -> list[int]:
    """Sizes of the batches, whose pixels together must be those of the video."""
    found = list(batches(source, size))
    assert torch.equal(torch.cat([batch.pixels for batch in found]), torch.from_numpy(VIDEO))
    return [len(batch) for batch in found]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (VIDEO, [4, 4, 3]),
        (torch.from_numpy(VIDEO), [4, 4, 3]),
        (Frames(pixels=VIDEO), [4, 4, 3]),
        (list(VIDEO), [4, 4, 3]),
        (iter(torch.from_numpy(VIDEO)), [4, 4, 3]),
        (iter([VIDEO[:2], VIDEO[2:8], VIDEO[8:]]), [2, 4, 2, 3]),
        (iter([VIDEO[0], VIDEO[1:3], VIDEO[3], VIDEO[4], Frames(pixels=VIDEO[5:])]), [1, 2, 2, 4, 2]),
    ],
)
def test_frames_come_in_every_form(source: object, expected: list[int]) -> None:
    assert lengths(source) == expected


@pytest.mark.parametrize("buffer", [np.empty((4, 6, 3), np.uint8), torch.empty((4, 6, 3), dtype=torch.uint8)])
def test_a_camera_may_write_all_frames_to_one_buffer(buffer: np.ndarray | torch.Tensor) -> None:
    def shots() -> Iterator[np.ndarray | torch.Tensor]:
        for image in VIDEO:
            buffer[:] = image if isinstance(buffer, np.ndarray) else torch.from_numpy(image)
            yield buffer

    assert lengths(shots()) == [4, 4, 3]


def test_indices_and_the_size_of_the_video_stay_with_their_frames() -> None:
    frames = Frames(pixels=VIDEO, index=np.arange(0, 22, 2), size=(40, 60))
    found = list(batches([frames], 8))
    assert [batch.index.tolist() for batch in found if batch.index is not None] == [
        [0, 2, 4, 6, 8, 10, 12, 14],
        [16, 18, 20],
    ]
    assert {batch.size for batch in found} == {(40, 60)}


def test_frames_are_read_as_they_are_asked_for() -> None:
    read = []

    def camera() -> Iterator[np.ndarray]:
        for image in VIDEO:
            read.append(image)
            yield image

    found = batches(camera(), 3)
    assert not read
    next(found)
    assert len(read) == 3


def test_views_and_read_only_frames_are_taken() -> None:
    flipped = VIDEO[..., ::-1]
    flipped.flags.writeable = False
    (batch,) = batches(flipped, 20)
    assert torch.equal(batch.pixels, torch.from_numpy(flipped.copy()))


def test_a_frame_of_another_size_begins_another_batch() -> None:
    """The segmenter, which knows the frame's index, refuses it."""
    found = list(batches([VIDEO[0], VIDEO[1], VIDEO[2][:2]], 4))
    assert [tuple(batch.pixels.shape) for batch in found] == [(2, 4, 6, 3), (1, 2, 6, 3)]


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("video.mp4", "frames: expected pixels, got the path 'video.mp4'; decode the file"),
        (Path("video.mp4"), "got the path 'video.mp4'"),
        (7, "frames: expected an array or an iterable of arrays, got int"),
        (VIDEO / 255, "frames: expected uint8 values 0-255, got torch.float64"),
        (VIDEO[..., :2], r"frames: expected shape \[T, H, W, 3\], got \[11, 4, 6, 2\]"),
        (VIDEO[0, 0], r"frames: expected shape \[T, H, W, 3\], got \[6, 3\]"),
        (VIDEO[:0], "has no pixels"),
        ([[1, 2]], "frames: expected numpy arrays or torch tensors, got list"),
        ([VIDEO[0].astype(np.int16)], "frames: expected uint8 values 0-255, got torch.int16"),
    ],
)
def test_bad_frames_are_refused(source: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(batches(source, 4))


@pytest.mark.usefixtures("as_user")
def test_each_frame_needs_an_index() -> None:
    with pytest.raises(ValueError, match=r"frames.index: expected 11 indices, got shape \(3,\)"):
        batches(Frames(pixels=VIDEO, index=np.arange(3)), 4)
