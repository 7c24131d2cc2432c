import json
from pathlib import Path

import pytest

from pipelines.datasets import ytvis
from pipelines.datasets.annotations import PredictedTrack
from pipelines.evaluation.benchmark import BurstBenchmark, TrackBenchmark
from pipelines.evaluation.benchmarks import BENCHMARKS
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from tests.pipelines.evaluation.few_categories import leave_out_categories
from tests.pipelines.metrics.burst_cases import CUP, FIRST, Files, Track, one


def test_percent_is_none_for_the_mean_of_nothing() -> None:
    shapes, burst = BENCHMARKS["shapes"], BENCHMARKS["burst"]
    numbers = {"AP": 0.25, "novel/AP": -1.0, "class_guided/HOTA/all": 17.5}
    assert [shapes.percent(numbers, name) for name in ("AP", "novel/AP", "base/AP")] == [25, None, None]
    assert burst.percent(numbers, "class_guided/HOTA/all") == 17.5


def test_shapes_remarks_on_too_few_objects() -> None:
    shapes = BENCHMARKS["shapes"]
    assert shapes.remarks({"categories": 3.0, "min_tracks": 10.0}) == ["3 categories have objects, the rarest 10"]
    few = shapes.remarks({"categories": 0.0, "min_tracks": -1.0})
    assert few[0] == "0 categories have objects, the rarest 0"
    assert few[1].startswith("warning: not by the protocol, which wants 10 objects or more")
    assert BENCHMARKS["lvvis"].remarks({}) == []


def test_predictions_are_written_in_the_format_of_the_benchmark(tmp_path: Path) -> None:
    split = write_split(tmp_path, "valid", 1, 0, SceneConfig(frames=2)).path
    benchmark = BENCHMARKS["lvvis"]
    truth = benchmark.read_ground_truth(str(split / "instances.json"), strict=True)
    benchmark.write_predictions(tmp_path / "p.json", truth, [prediction(truth.videos[0].id, 2)])
    assert json.loads((tmp_path / "p.json").read_text())[0]["segmentations"] == [None, None]

    cup = Track(CUP, [FIRST, FIRST])
    files = Files(tmp_path)(*one([cup], [Track(CUP, [FIRST, FIRST], 0.8)]))
    burst = BENCHMARKS["burst"]
    truth = burst.read_ground_truth(files[0].path, strict=False)
    burst.write_predictions(tmp_path / "b.json", truth, [prediction(1, truth.videos[0].length)])
    assert "track_category_ids" in json.loads((tmp_path / "b.json").read_text())["sequences"][0]
    assert isinstance(burst, BurstBenchmark)


def prediction(video: int, frames: int) -> PredictedTrack:
    return PredictedTrack(video_id=video, category_id=CUP, score=0.5, masks=(None,) * frames)


@pytest.mark.parametrize(("name", "strict"), [("ytvis", False), ("shapes", True)])
def test_only_shapes_is_always_strict(name: str, strict: bool, tmp_path: Path) -> None:
    split = write_split(tmp_path, "valid", 1, 0, SceneConfig(frames=2)).path
    truth_file = leave_out_categories(split / "instances.json")
    truth = ytvis.read_ground_truth(str(truth_file), strict=True)
    first = truth.tracks[0]
    short = PredictedTrack(video_id=1, category_id=first.category_id, score=0.5, masks=first.masks[:1])
    ytvis.write_predictions(tmp_path / "p.json", [short])
    benchmark = next(value for key, value in BENCHMARKS.items() if key == name)
    assert isinstance(benchmark, TrackBenchmark)
    files = str(truth_file), str(tmp_path / "p.json")
    if strict:
        with pytest.raises(ValueError, match="entry 0"):
            benchmark.evaluate(*files, strict=False, threads=1)
    else:
        assert sum(benchmark.evaluate(*files, strict=False, threads=1).warnings.values()) == 1
