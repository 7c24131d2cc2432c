from collections.abc import Callable
from typing import Any

import pytest

from pipelines.archive.config import CompactConfig, ExportConfig, IdentitiesConfig, RelabelConfig, SearchConfig


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: CompactConfig(labels="x", part_mb=0), "^part_mb: expected more than 0, got 0"),
        (lambda: SearchConfig(labels="x", text="red star", top=0), "^top: expected at least 1, got 0"),
        (lambda: RelabelConfig(labels="x", output="y", vocabulary="z", top=0), "^top: expected at least 1, got 0"),
        (lambda: RelabelConfig(labels="x", output="y", vocabulary="z", stall_s=0), "^stall_s: expected more than 0"),
        (
            lambda: ExportConfig(labels="x", output="y", format="coco", min_score=2),
            "^min_score: expected 0 to 1, got 2",
        ),
        (
            lambda: ExportConfig(labels="x", output="y", format="voc"),  # type: ignore[arg-type]
            "^format: unknown value 'voc'; choose from youtube_vis, coco, cvat, ",
        ),
    ],
)
@pytest.mark.usefixtures("as_user")
def test_bad_options_are_refused(config: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config()


@pytest.mark.parametrize(
    ("options", "least"),
    [({}, 0.85), ({"across_videos": True}, 0.95), ({"across_videos": True, "threshold": 0.85}, 0.85)],
)
def test_more_is_asked_of_tracks_of_different_videos(options: dict[str, Any], least: float) -> None:
    assert IdentitiesConfig(labels="labels", **options).least_similarity == least
