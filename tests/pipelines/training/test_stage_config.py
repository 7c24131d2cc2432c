from typing import Any

import pytest

from openvis_model.training.config import StartConfig
from pipelines.shapes.images import ShapesImagesConfig
from pipelines.training.data import TrainingDataConfig
from pipelines.training.stage_config import ClipStageConfig, PretrainingConfig, ValidationConfig

START = StartConfig(preset="mini")


def data(**changes: Any) -> TrainingDataConfig:
    return TrainingDataConfig(annotations="a.json", **changes)


def test_no_videos_are_refused() -> None:
    with pytest.raises(ValueError, match="most_videos: expected at least 1, got 0"):
        ValidationConfig(annotations="a.json", most_videos=0)


def test_one_data_set_or_several() -> None:
    assert ClipStageConfig(start=START, data=data()).data_sets == (data(),)
    mixed = (data(), data(format="coco", weight=2.0, flip=0.0))
    assert ClipStageConfig(start=START, data=mixed).data_sets == mixed


def test_one_seed_is_for_all_that_is_drawn() -> None:
    one = ClipStageConfig(start=START, data=data(seed=3)).seeded(7)
    assert (one.start.seed, one.data) == (7, data(seed=10))
    several = ClipStageConfig(start=START, data=(data(), data(seed=1))).seeded(2)
    assert several.data == (data(seed=2), data(seed=3))
    assert several.seeded(0) == several
    pictures = PretrainingConfig(images=ShapesImagesConfig(seed=4)).seeded(2)
    assert (pictures.seed, pictures.images.seed) == (2, 6)


@pytest.mark.parametrize("change", [{"frames": 5}, {"height": 64}, {"width": 64}])
def test_clips_that_differ_are_refused(change: dict[str, int]) -> None:
    ((name, value),) = change.items()
    first = getattr(data(), name)
    with pytest.raises(ValueError, match=f"^data: data set 1 has {name} {value}, but the first one {first}; "):
        ClipStageConfig(start=START, data=(data(), data(**change)))


def test_no_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match="^data: got an empty list; give at least one data set"):
        ClipStageConfig(start=START, data=())
