from typing import Any

import pytest

from openvis_model.options import VideoTrackerConfig
from pipelines.labelling.config import LabelConfig


def config(**options: Any) -> LabelConfig:
    return LabelConfig(input="in", output="out", vocabulary="names.txt", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 5.0, "stride": 2}, "stride"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"max_attempts": 0}, "max_attempts: expected at least 1, got 0"),
        ({"model_actors": "8-1"}, "model_actors: expected a number from 1 on, or a range such as 1-8, got 8-1"),
        ({"model_on": ["H100"]}, "model_on: expected labels such as ray.io/market-type=spot, or any, got 'H100'"),
        ({"decode_on": []}, "decode_on: is empty"),
        ({"model_gpus": -1.0}, "model_gpus: expected 0 or more, got -1.0"),
        ({"max_failed": 100.0}, "max_failed: expected a share from 0 to 1, got 100.0"),
        ({"grace_s": float("inf")}, "grace_s: expected 0 or more, got inf"),
        ({"stall_s": 0.0}, "stall_s: expected more than 0, got 0.0"),
        ({"decoder_memory_gb": 0.1}, "decoder_memory_gb: expected 0.5 or more, got 0.1"),
        ({"objectness_floor": 0.9}, "objectness_floor: .* got 0.9; lower it or raise the threshold"),
        ({"precision": "float16"}, "precision: unknown value 'float16'"),
    ],
    ids=str,
)
def test_bad_values_are_refused(as_user: None, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**options)


def test_limits_of_decoders() -> None:
    limits = config(decoder_silence_s=7.0, decoder_total_s=60.0, decoder_memory_gb=1.5).limits()
    assert (limits.silence_s, limits.total_s, limits.memory_bytes) == (7.0, 60.0, 1_500_000_000)


def test_the_fingerprint_has_the_settings_that_change_the_tables() -> None:
    same = config(
        batch_size=1,
        segment_frames=None,
        model_actors="1-8",
        decode_on=["a=b"],
        trackers=3,
        stall_s=1.0,
        decoder_memory_gb=1.0,
        max_failed=0.9,
        top=3,
    )
    assert same.fingerprint() == config().fingerprint()
    others = [
        config(stride=2),
        config(fps=2.0),
        config(precision="bfloat16"),
        config(tracker=VideoTrackerConfig(max_gap=3)),
        config(shots="none"),
    ]
    assert len({other.fingerprint() for other in (config(), *others)}) == 6
