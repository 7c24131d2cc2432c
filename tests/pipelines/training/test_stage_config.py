import pytest

from pipelines.training.stage_config import ValidationConfig


def test_no_videos_are_refused() -> None:
    with pytest.raises(ValueError, match="most_videos: expected at least 1, got 0"):
        ValidationConfig(annotations="a.json", most_videos=0)
