"""Costs of errors of BURST's tracks, worked out by hand as in tests/pipelines/metrics/test_errors.py."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.datasets.burst import BurstGroundTruth, BurstPredictions
from pipelines.datasets.burst_files import read_ground_truth, read_predictions
from pipelines.metrics.burst_errors import RULES, as_tracks, burst_error_costs
from pipelines.metrics.burst_preparation import evaluated, evaluated_categories, limited, merged, ranking_order
from pipelines.metrics.errors import KINDS
from pipelines.metrics.track_map import TrackMatches, average_precision, match_tracks
from pipelines.metrics.video_ap import video_ap
from tests.pipelines.metrics.burst_cases import CUP, FAR, FIRST, HAT, SECOND, Files, Track, box, one, sequence


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def costs(data: tuple[BurstGroundTruth, BurstPredictions]) -> dict[str, object]:
    """Only those that are not 0."""
    every = burst_error_costs(*data)
    assert tuple(every) == KINDS
    return {kind: pytest.approx(cost, abs=1e-12) for kind, cost in every.items() if abs(cost) > 1e-12}


def found(*masks: Any, category: int = CUP, score: float = 0.5) -> Track:
    return Track(category, masks, score)


CUPS = [found(FIRST, FIRST)]


def test_perfect_predictions_cost_nothing(files: Files) -> None:
    assert costs(files(*one(CUPS, CUPS))) == {}


def test_a_fragment(files: Files) -> None:
    """Right in one of three frames; the frames between the annotated ones do not exist."""
    data = files(*one([found(FIRST, FIRST, FIRST)], [found(None, FIRST, None)], frames=3))
    assert costs(data) == {"tracking": 1}


def test_a_wrong_category(files: Files) -> None:
    """Cups: 0. Hats: wrong before right, 1/2."""
    objects = [*CUPS, found(SECOND, SECOND, category=HAT)]
    predictions = [found(FIRST, FIRST, category=HAT, score=0.9), found(SECOND, SECOND, category=HAT, score=0.8)]
    assert costs(files(*one(objects, predictions))) == {"classification": 3 / 4}


@pytest.mark.parametrize(
    ("lists", "kind", "cost"), [({}, "missed", 1 / 2), ({"negative": [HAT]}, "classification", 3 / 4)]
)
def test_categories_of_which_nothing_is_known_are_left_out(files: Files, lists: Any, kind: str, cost: float) -> None:
    """A cup that is taken for a hat, in a sequence where hats were looked for or not; and a hat in another one."""
    hats = [found(SECOND, SECOND, category=HAT, score=0.8)]
    predictions = [sequence("a", [found(FIRST, FIRST, category=HAT, score=0.9)]), sequence("b", hats)]
    assert costs(files([sequence("a", CUPS, **lists), sequence("b", hats)], predictions)) == {kind: cost}


def test_categories_are_merged_or_left_out(files: Files) -> None:
    """A prediction of 504 is a cup; objects and predictions of 63 do not exist."""
    objects = [*CUPS, found(FAR, FAR, category=63)]
    predictions = [found(FIRST, FIRST, category=504), found(SECOND, SECOND, category=63, score=0.9)]
    assert costs(files(*one(objects, predictions))) == {}


def test_the_score_of_a_track_is_the_mean(files: Files) -> None:
    """(0.9 + 0.1) / 2 is behind 0.6: wrong before right."""
    annotated, predicted = one(CUPS, [found(FIRST, FIRST, score=0.9), found(FAR, FAR, score=0.6)])
    predicted[0]["segmentations"][1]["1"]["score"] = 0.1
    assert costs(files(annotated, predicted)) == {"background": 1 / 2}


BESIDE = [found(FIRST, FIRST, score=0.8), found(FAR, FAR, score=0.9)]
TWO = [*CUPS, found(SECOND, SECOND)]
TWICE = [found(FIRST, FIRST, score=0.9), found(FIRST, FIRST, score=0.8), found(SECOND, SECOND, score=0.7)]
LOOSE = [found(box(0, 9), box(0, 9))]


@pytest.mark.parametrize(
    ("objects", "predictions", "known", "unknown"),
    [
        (CUPS, BESIDE, {"background": 1 / 2}, {}),
        (TWO, TWICE, {"duplicate": 50 * (1 - 2 / 3) / 101}, {}),
        (CUPS, LOOSE, {"localisation": 1}, {"missed": 1}),
    ],
    ids=["background", "duplicate", "localisation"],
)
def test_what_matches_nothing_is_left_out_where_not_all_is_annotated(
    files: Files, objects: list[Track], predictions: list[Track], known: dict[str, float], unknown: dict[str, float]
) -> None:
    assert costs(files(*one(objects, predictions))) == known
    assert costs(files(*one(objects, predictions, not_exhaustive=[HAT]))) == known
    assert costs(files(*one(objects, predictions, not_exhaustive=[CUP]))) == unknown


def test_a_category_that_is_not_exhaustive_elsewhere(files: Files) -> None:
    """What is not known of one sequence is known of the other."""
    data = files(
        [sequence("a", CUPS, not_exhaustive=[CUP]), sequence("b", CUPS)], [sequence("a", []), sequence("b", BESIDE)]
    )
    assert costs(data) == {"background": 51 / 101 / 2, "missed": 1 / 2 - 51 / 101 / 2}


def test_any_number_of_tracks_counts(files: Files) -> None:
    """The right one is behind 101 wrong ones."""
    data = files(*one(CUPS, [*[found(FAR, None, score=0.9)] * 101, *CUPS]))
    assert costs(data) == {"background": 1 - 1 / 102}


def test_tracks_are_those_of_the_annotated_frames(files: Files) -> None:
    """Videos are in the order in which equal scores are ranked."""
    data = files(
        [sequence("b", CUPS), sequence("a", [found(None, FAR, category=207)])], [sequence("b", []), sequence("a", [])]
    )
    truth, predictions = as_tracks(*data)
    assert [(video.id, video.file_names[0]) for video in truth.videos] == [
        (1, "val/AVA/a/frame0000.jpg"),
        (2, "val/AVA/b/frame0000.jpg"),
    ]
    assert [(track.id, track.video_id, track.category_id) for track in truth.tracks] == [(1, 1, HAT), (2, 2, CUP)]
    assert [[mask is None for mask in track.masks] for track in truth.tracks] == [[True, False], [False, False]]
    assert [category.id for category in truth.categories] == [CUP, HAT]
    assert predictions == []


def track_map(truth: BurstGroundTruth, predictions: BurstPredictions) -> float:
    """TrackMAP at an IoU of 0.5."""
    sequences = [evaluated(each) for each in truth.sequences]
    categories = evaluated_categories(sequences)
    parts: dict[int, list[TrackMatches]] = {category: [] for category in categories}
    for number in ranking_order(sequences):
        predicted = merged(limited(predictions.sequences[number]))
        for category, matches in match_tracks(sequences[number], predicted, categories).items():
            parts[category].append(matches)
    return float(np.mean([average_precision(its)[0][0, 0] for its in parts.values()]))


def random_tracks(rng: np.random.Generator, count: int, start: int) -> list[Track]:
    tracks = []
    for number in range(start, start + count):
        x, score, category = (
            int(rng.integers(0, 5)) * 8,
            float(rng.integers(1, 5)) / 4,
            int(rng.choice([CUP, HAT, 504, 63])),
        )
        masks = [None if rng.random() < 0.2 else box(x + int(rng.integers(0, 5)), 20) for _ in range(3)]
        masks[0] = box(x, 20)
        tracks.append(Track(category, masks, score, id=number))
    return tracks


@pytest.mark.parametrize("seed", range(5))
def test_nothing_else_is_analysed_than_track_map(files: Files, seed: int) -> None:
    rng = np.random.default_rng(seed)
    annotated, predicted = [], []
    for name in "cab":
        lists = {kind: [each for each in (CUP, HAT) if rng.random() < 0.4] for kind in ("negative", "not_exhaustive")}
        annotated.append(sequence(name, random_tracks(rng, 4, 1), frames=3, **lists))
        predicted.append(sequence(name, random_tracks(rng, 9, 1), frames=3))
    data = files(annotated, predicted)
    ap50 = video_ap(*as_tracks(*data), RULES)["AP50"]
    assert 0 < ap50 == pytest.approx(track_map(*data), abs=1e-12)


if fixtures := os.environ.get("OPENVIS_EVAL_FIXTURES"):

    @pytest.mark.parametrize("folder", sorted(Path(fixtures, "burst").glob("*/")), ids=lambda folder: folder.name)
    def test_the_ap50_of_official_files(folder: Path) -> None:
        truth = read_ground_truth(str(folder / "gt" / "all_classes.json"), strict=False)
        predictions = read_predictions(str(folder / "predictions.json"), truth, strict=False)
        ap50 = video_ap(*as_tracks(truth, predictions), RULES)["AP50"]
        assert ap50 == pytest.approx(track_map(truth, predictions), abs=1e-12)
