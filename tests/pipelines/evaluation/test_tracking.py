from openvis_model.options import AssociationConfig
from pipelines.datasets.benchmark_videos import BenchmarkVideo
from pipelines.evaluation.tracking import benchmark_tracker


def test_benchmarks_keep_every_instance_and_refuse_no_match() -> None:
    """And end no track before its video, of which more frames may be looked at than are annotated."""
    places = ((0, 1, 2), (3, 20, 35), (6,))
    videos = [
        BenchmarkVideo(id=1, uri="/v", positions={frame: at for at, frame in enumerate(frames)}, length=len(frames))
        for frames in places
    ]
    tracker = benchmark_tracker(AssociationConfig(kind="iou", min_similarity=0.5), videos)
    assert (tracker.association.kind, tracker.association.gate) == ("iou", -1)
    assert (tracker.objectness_threshold, tracker.max_gap) == (0, 36)
