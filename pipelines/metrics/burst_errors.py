"""The errors that cost BURST's average precision of tracks, by the kinds of `pipelines.metrics.errors`."""

from collections.abc import Sequence
from dataclasses import replace

from pipelines.datasets.annotations import AnnotatedTrack, Category, GroundTruth, PredictedTrack
from pipelines.datasets.burst import BurstGroundTruth, BurstPredictions
from pipelines.metrics.burst_preparation import (
    evaluated,
    evaluated_categories,
    known_categories,
    limited,
    merged,
    ranking_order,
    tracks,
)
from pipelines.metrics.errors import error_costs
from pipelines.metrics.rules import YTVIS
from pipelines.metrics.track_matching import match_tracks

RULES = replace(YTVIS, max_detections=(1, 10, 1 << 30))  # BURST limits the detections of a frame, not tracks


def burst_error_costs(ground_truth: BurstGroundTruth, predictions: BurstPredictions) -> dict[str, float]:
    """Returns the AP50 of `as_tracks`, a fraction, that each kind of error costs, in the manner of `error_costs`.

    Args:
        ground_truth: the file with all categories.
        predictions: read for this ground truth.
    """
    truth, tracks = as_tracks(ground_truth, predictions)
    return error_costs(truth, match_tracks(truth, tracks, RULES, pairs="video"), RULES)


def as_tracks(
    ground_truth: BurstGroundTruth, predictions: BurstPredictions
) -> tuple[GroundTruth, list[PredictedTrack]]:
    """Returns the objects and predictions that count in TrackMAP, as tracks over the annotated frames.

    Categories are merged, and those that are not evaluated left out. Predictions are those of categories that are in
    their sequence or negative in it; a track's score is the mean over its masks.

    Where a category is not exhaustive, a prediction of it that matches no object may show one that is not annotated.
    TrackMAP takes it for neither right nor wrong, so it is left out, and there can be no errors under such a category
    but missed objects: nobody knows whether a mask beside an object is a bad one of it or a good one of another. With
    that, AP50 of these tracks by `RULES` is TrackMAP's at 0.5, but that the track id 0 is an id like others.

    Args:
        ground_truth: the file with all categories.
        predictions: read for this ground truth.

    Returns:
        Ground truth, whose videos are numbered from 1 in the order in which equal scores are ranked and whose tracks
        state no areas, and predictions.
    """
    sequences = [evaluated(sequence) for sequence in ground_truth.sequences]
    categories = evaluated_categories(sequences)
    objects: list[AnnotatedTrack] = []
    sure: list[PredictedTrack] = []
    unsure: list[PredictedTrack] = []  # of categories that are not exhaustive
    order, videos = ranking_order(sequences), ground_truth.videos
    for video, number in enumerate(order, start=1):
        sequence = sequences[number]
        known = known_categories(sequence, categories)
        for track in tracks(sequence, sequence.objects, known):
            objects.append(
                AnnotatedTrack(
                    id=len(objects) + 1,
                    video_id=video,
                    category_id=track.category,
                    masks=track.masks,
                    areas=(None,) * len(track.masks),
                )
            )
        for track in tracks(sequence, merged(limited(predictions.sequences[number])), known):
            side = unsure if track.category in sequence.not_exhaustive else sure
            side.append(
                PredictedTrack(video_id=video, category_id=track.category, score=track.score, masks=track.masks)
            )
    truth = GroundTruth(
        path=ground_truth.path,
        sha256=ground_truth.sha256,
        videos=tuple(replace(videos[number], id=video) for video, number in enumerate(order, start=1)),
        categories=tuple(Category(id=category, name=str(category)) for category in sorted(categories)),
        tracks=tuple(objects),
    )
    return truth, sure + _matched(truth, unsure)


def _matched(truth: GroundTruth, predictions: Sequence[PredictedTrack]) -> list[PredictedTrack]:
    """Returns those that match an object at an IoU of 0.5. The others take no object, so leaving them out is safe."""
    kept: list[int] = []
    for matches in match_tracks(truth, predictions, RULES):
        kept += matches.predictions[matches.matched[0, 0] >= 0].tolist()
    return [predictions[number] for number in sorted(kept)]
