from typing import Any

import pytest

from openvis_model.options import VideoTrackerConfig
from pipelines.following.config import PROMPTED, TrackConfig

GIVEN: dict[str, Any] = {"video": "v.mp4", "output": "out", "prompt": "1s: point 1 2"}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"prompt": None}, "prompt: missing; give one as --prompt"),
        ({"fps": 0.0}, "fps: is 0.0"),
        ({"model_gpus": 2}, "model_gpus: expected 0 or 1, got 2"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"stall_s": 0.0}, "stall_s: expected more than 0"),
        ({"decoder_memory_gb": 0.1}, "decoder_memory_gb: expected 0.5 or more"),
        ({"shots": "all"}, "shots: unknown value 'all'"),
        ({"precision": "bf16"}, "precision: unknown value 'bf16'"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        TrackConfig(**GIVEN | options)


def test_the_fingerprint_is_of_all_that_tracks_depend_on() -> None:
    config, prompts = TrackConfig(**GIVEN), ["1s: point 1 2"]
    own = config.fingerprint(prompts)
    assert own.startswith(PROMPTED)
    assert TrackConfig(**GIVEN | {"batch_size": 3, "overwrite": True}).fingerprint(prompts) == own
    for options in ({"fps": 5}, {"stride": 2}, {"shots": "none"}, {"tracker": VideoTrackerConfig(max_gap=3)}):
        assert TrackConfig(**GIVEN | options).fingerprint(prompts) != own
    assert config.fingerprint([*prompts, "2s: point 1 2"]) != own
