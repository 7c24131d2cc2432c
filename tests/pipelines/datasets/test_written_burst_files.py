import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.datasets.annotations import Mask, PredictedTrack
from pipelines.datasets.burst import BurstDetections
from pipelines.datasets.burst_files import read_predictions, write_predictions, write_tracks
from pipelines.storage.files import Storage
from tests.pipelines.datasets.burst_documents import GROUND_TRUTH, HEIGHT, WIDTH, Files, rle, rows, set_item


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def detections(**columns: Any) -> BurstDetections:
    values = {"frame": [0, 1, 1], "track_id": [1, 1, 2], "category_id": [13, 13, 504], "score": [0.5, 0.25, 1]}
    counts = columns.pop("counts", (rle(3).encode(), rle(4).encode(), rle(0).encode()))
    types = {"score": np.float64}
    arrays = {name: np.array(value, types.get(name, np.int64)) for name, value in (values | columns).items()}
    return BurstDetections(masks=tuple(Mask(6, 8, each) for each in counts), **arrays)


NONE = BurstDetections(
    frame=np.zeros(0, np.int64),
    track_id=np.zeros(0, np.int64),
    category_id=np.zeros(0, np.int64),
    score=np.zeros(0),
    masks=(),
)


def test_written_predictions_are_read_again(files: Files) -> None:
    """All but the mask without pixels, whose track is gone with it; the rest is the ground truth's."""
    truth = files.ground_truth()
    write_predictions(files.predictions, truth, [detections(), NONE])
    read = read_predictions(files.predictions, truth, strict=True)
    assert rows(read.sequences[0]) == rows(detections())[:2]
    document = json.loads(Path(files.predictions).read_text())
    assert document["sequences"][0]["track_category_ids"] == {"1": 13}
    for written, given in zip(document["sequences"], GROUND_TRUTH["sequences"], strict=True):
        own = {"track_category_ids", "segmentations"}
        assert {key: written[key] for key in given.keys() - own} == {key: given[key] for key in given.keys() - own}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"track_id": [0, 1, 2]},
            "frame k_scene_000031.png, track 0: score is 0.5; give finite scores, and ids from 1",
        ),
        ({"score": [0.5, float("inf"), 1]}, "frame k_scene_000001.png, track 1: score is inf"),
        (
            {"category_id": [13, 14, 1]},
            "frame k_scene_000001.png, track 1: category is 14, before 13; give a track one",
        ),
        ({"frame": [1, 1, 1]}, "track 1: occurs twice in the frame; give ids that are unique"),
        (
            {"counts": (b"0", b"0", b"0")},
            "frame k_scene_000031.png, track 1: rle: counts must be runs with the sum 6 * 8, got 0",
        ),
    ],
)
def test_bad_predictions_are_not_written(files: Files, columns: dict[str, Any], message: str) -> None:
    truth = files.ground_truth()
    with pytest.raises(ValueError, match="predictions.json: sequence val/AVA/kitchen") as error:
        write_predictions(files.predictions, truth, [detections(**columns), NONE])
    assert message in str(error.value)
    assert not Path(files.predictions).exists()


def test_predictions_are_written_whole_or_not_at_all(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = files.ground_truth()
    write_predictions(files.predictions, truth, [detections(), NONE])
    before = Path(files.predictions).read_bytes()

    def crash(*_: object) -> None:
        raise RuntimeError("crash")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(RuntimeError):
        write_predictions(files.predictions, truth, [NONE, NONE])
    assert Path(files.predictions).read_bytes() == before
    assert sorted(Storage(str(Path(files.gt).parent)).list(".")) == ["gt.json", "predictions.json"]


def test_a_changed_ground_truth_is_noticed(files: Files) -> None:
    truth = files.ground_truth()
    files.ground_truth(set_item("id", 9, 0))
    with pytest.raises(ValueError, match="gt.json: has changed since it was read; read it again"):
        write_predictions(files.predictions, truth, [NONE, NONE])


def whole(video: int, score: float, *masks: str | None, category: int = 13) -> PredictedTrack:
    size = (HEIGHT, WIDTH) if video == 1 else (2, 3)
    return PredictedTrack(
        video_id=video,
        category_id=category,
        score=score,
        masks=tuple(None if each is None else Mask(*size, each.encode()) for each in masks),
    )


def test_written_tracks_are_read_again(files: Files) -> None:
    """Numbered from 1 in each sequence; masks that are absent or have no pixels are left out."""
    truth = files.ground_truth()
    tracks = [
        whole(1, 0.5, rle(3), None),
        whole(2, 0.75, rle(2, (2, 3)), category=7),
        whole(1, 0.25, rle(0), rle(5), category=504),
    ]
    write_tracks(files.predictions, truth, iter(tracks))
    kitchen, street = read_predictions(files.predictions, truth, strict=True).sequences
    assert rows(kitchen) == [(0, 1, 13, 0.5, rle(3).encode()), (1, 2, 504, 0.25, rle(5).encode())]
    assert rows(street) == [(0, 1, 7, 0.75, rle(2, (2, 3)).encode())]


@pytest.mark.parametrize(
    ("track", "message"),
    [
        (whole(3, 1.0, None), "video id 3; give ids from 1 to 2"),
        (whole(0, 1.0, None), "video id 0; give ids from 1 to 2"),
        (whole(1, 1.0, None), "sequence val/AVA/kitchen, track 1: 1 masks for 2 frames; give one each"),
        (whole(2, float("nan"), rle(2, (2, 3))), "frame frame0001.jpg, track 1: score is nan"),
        (whole(2, 1.0, rle(2)), "frame frame0001.jpg, track 1: rle: counts must be runs with the sum 2 * 3, got 48"),
        (replace(whole(1, 1.0, None), video_id=2, masks=(Mask(6, 8, b""),)), "track 1: a mask of 6x8; give 2x3"),
    ],
)
def test_bad_tracks_are_not_written(files: Files, track: PredictedTrack, message: str) -> None:
    truth = files.ground_truth()
    with pytest.raises(ValueError, match="predictions.json: ") as error:
        write_tracks(files.predictions, truth, [track])
    assert message in str(error.value)
    assert not Path(files.predictions).exists()
