from dataclasses import asdict
from typing import Any

import pytest

from openvis_model.options import AssociationConfig, InstClipConfig, RolloutTrackerConfig, VideoTrackerConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [("guidance", "soft"), ("guided", "tail"), ("resampling", "nearest"), ("lora_rank", 0), ("lora_alpha", -1)],
)
@pytest.mark.usefixtures("as_user")
def test_bad_inst_clip_config_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        InstClipConfig(**{field: value})


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(("field", "value"), [("kind", "lstm"), ("token", "box")])
def test_bad_rollout_tracker_config_is_refused(field: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"rollout_tracker.{field}.*{value!r}"):
        RolloutTrackerConfig(**{field: value})


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("field", "value"), [("kind", "bytetrack"), ("token", "box"), ("momentum", 0.0), ("min_similarity", 1.5)]
)
def test_bad_association_config_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"association.{field}.*{value}"):
        AssociationConfig(**{field: value})


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(("field", "value"), [("objectness_threshold", 1.5), ("max_gap", -1)])
def test_bad_video_tracker_config_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{field}.*{value}"):
        VideoTrackerConfig(**{field: value})


@pytest.mark.parametrize("kind", ["hungarian", "momentum", "rollout"])
@pytest.mark.parametrize("token", ["query", "instance_query"])
@pytest.mark.parametrize("gate", [None, 0.2])
def test_tracks_by_rules_that_have_changed_are_told_apart(kind: Any, token: Any, gate: float | None) -> None:
    """How queries are linked, and the default gate of `rollout`: an archive is not continued by other rules."""
    config = VideoTrackerConfig(association=AssociationConfig(kind=kind, token=token, min_similarity=gate))
    changed = gate is None if kind == "rollout" else token == "query"
    assert (config.identity() != asdict(config)) == changed
