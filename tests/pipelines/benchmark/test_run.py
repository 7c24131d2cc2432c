from pathlib import Path

import pytest
import torch

from pipelines.benchmark.config import BenchmarkConfig
from pipelines.benchmark.run import draw_video, run_benchmark


def test_every_stage_is_measured() -> None:
    named: list[str] = []
    result = run_benchmark(BenchmarkConfig(device="cpu", batch_size=2, seconds=1e-9), named.append)
    assert named == ["the machine", "decoding", "the model", "tracking", "the machine again"]
    assert [stage.name for stage in result.stages] == ["decode", "mask proposal", "classifier", "masks", "track"]
    assert (result.size, result.working_size) == ((480, 640), (128, 160))
    assert list(result.batches) == [2]
    parts = {stage.name: stage for stage in result.stages}
    for name in ("mask proposal", "classifier"):
        assert parts[name].flops > 1e6
        assert parts[name].moved_bytes > 1e5
    assert all(stage.frame_s > 0 for stage in result.stages)
    actors = int(result.advice.options["model_actors"])
    assert result.advice.frames_per_s < actors / result.model_s


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"video: .*text\.mp4: "):
        run_benchmark(BenchmarkConfig(video=str(tmp_path / "text.mp4"), device="cpu"), print)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device: this machine has no GPU"):
            run_benchmark(BenchmarkConfig(device="cuda"), print)


def test_the_video_is_one_of_shapes(tmp_path: Path) -> None:
    assert Path(draw_video(tmp_path)).suffix == ".mp4"
