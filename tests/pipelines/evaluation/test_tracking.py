from openvis_model.options import AssociationConfig
from pipelines.datasets.benchmark_videos import BenchmarkVideo
from pipelines.evaluation.tracking import benchmark_tracker


def test_benchmarks_keep_every_instance_and_refuse_no_match() -> None:
    videos = [BenchmarkVideo(id=n, uri="/v.mp4", positions={}, length=n) for n in (5, 36, 7)]
    tracker = benchmark_tracker(AssociationConfig(kind="iou", min_similarity=0.5), videos)
    assert (tracker.association.kind, tracker.association.gate) == ("iou", -1)
    assert (tracker.objectness_threshold, tracker.max_gap) == (0, 36)
