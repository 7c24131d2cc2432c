from typing import Any

import pytest

from pipelines.benchmark.advice import advise

SETTING: dict[str, Any] = {"options": {"batch_size": "8"}, "core_price": 0.05, "gpu_price": 1.0}


def test_cores_do_everything_by_hand() -> None:
    """2 cores: the model takes both for 0.09 s, decoding and tracking one for 0.02 s: 0.1 s a frame."""
    advice = advise(
        model_s=0.09, decode_s=0.015, track_s=0.005, cores=2, threads=2, gpus=0, frames_per_video_s=5.0, **SETTING
    )
    assert advice.frames_per_s == pytest.approx(10)
    assert advice.limit == "the model"
    assert advice.options == {"batch_size": "8", "model_actors": "1", "trackers": "1"}
    assert advice.cores_per_gpu is None
    assert advice.hours == pytest.approx(500)  # 18 million frames
    assert advice.cost == pytest.approx(50)


def test_a_gpu_waits_for_few_cores_by_hand() -> None:
    """A GPU makes 100 frames/s; decoding and tracking take 0.03 s of a core: three cores, and there are two."""
    advice = advise(
        model_s=0.01, decode_s=0.01, track_s=0.02, cores=2, threads=2, gpus=1, frames_per_video_s=5.0, **SETTING
    )
    assert advice.frames_per_s == pytest.approx(2 / 0.03)
    assert advice.limit == "decoding and tracking"
    assert advice.cores_per_gpu == pytest.approx(3)
    assert advice.options == {"batch_size": "8", "model_actors": "1", "trackers": "2", "model_gpus": "1"}
    assert advice.hours == pytest.approx(75)
    assert advice.cost == pytest.approx(75 * 1.1)


def test_a_gpu_with_enough_cores_is_the_limit() -> None:
    advice = advise(
        model_s=0.1, decode_s=0.01, track_s=0.02, cores=8, threads=8, gpus=2, frames_per_video_s=1.0, **SETTING
    )
    assert advice.frames_per_s == pytest.approx(20)
    assert advice.limit == "the model"
    assert advice.options["model_actors"] == "2"
