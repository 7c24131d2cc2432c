from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.archive.parts import Rows
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results
from pipelines.datasets.annotations import Mask
from pipelines.datasets.benchmark_videos import BenchmarkVideo
from pipelines.evaluation.predictions import read_predictions
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name

IDS = {"star": 7, "disc": 9, "ring": 4}
VIDEO = BenchmarkVideo(id=3, uri="/videos/a.mp4", positions={0: 0, 2: 1, 4: 2}, length=3)


def row(table: str, **values: Any) -> dict[str, Any]:
    return dict.fromkeys(SCHEMAS[table].names) | {"video_id": "3"} | values


def track(number: int, **scores: float) -> dict[str, Any]:
    best = sorted(scores.items(), key=lambda item: -item[1])
    return row("tracks", track_id=number, top=[{"category": name, "score": score} for name, score in best])


def mask(number: int, frame: int, counts: str) -> dict[str, Any]:
    return row("masks", track_id=number, frame=frame, rle={"size": [2, 3], "counts": counts})


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Track 0 is seen in frames 0 and 4, track 1 in frames 2 and 3; frame 3 is none of the ground truth's."""
    results = Results(Storage(str(tmp_path / "labels")))
    part = Rows()
    tracks = [track(0, star=0.5, disc=0.375, ring=0.25), track(1, disc=0.75, star=0.375, ring=0.125)]
    masks = [mask(0, 0, "06"), mask(0, 4, "15"), mask(1, 2, "24"), mask(1, 3, "33")]
    for table, rows in (
        ("tracks", tracks),
        ("masks", masks),
        ("videos", [row("videos", status="ok", uri=VIDEO.uri, frames=5)]),
    ):
        part.add(table, rows)
    part.put(results.storage, part_name(1))
    return results


def test_the_best_pairs_of_track_and_category_are_handed_in(results: Results) -> None:
    found = list(read_predictions(results, [VIDEO], IDS, top_k=3))
    assert [(p.video_id, p.category_id, p.score) for p in found] == [(3, 9, 0.75), (3, 7, 0.5), (3, 9, 0.375)]
    first, second = (None, Mask(2, 3, b"24"), None), (Mask(2, 3, b"06"), None, Mask(2, 3, b"15"))
    assert [p.masks for p in found] == [first, second, second]  # of equal scores, the earlier track's


def test_videos_are_found_by_their_uri_too(results: Results) -> None:
    other = BenchmarkVideo(id=8, uri=VIDEO.uri, positions=VIDEO.positions, length=3)
    assert {p.video_id for p in read_predictions(results, [other], IDS, top_k=2)} == {8}


def test_a_file_with_another_number_of_frames_has_no_score(results: Results) -> None:
    """Its masks would be those of other frames."""
    whole = BenchmarkVideo(id=3, uri=VIDEO.uri, positions={frame: frame for frame in range(5)}, length=5, encoded=True)
    assert len(list(read_predictions(results, [whole], IDS, top_k=3))) == 3
    longer = replace(whole, positions={frame: frame for frame in range(10)}, length=10)
    with pytest.raises(ValueError, match="video 3, .*a.mp4, has 5 frames, but 10 in the ground truth; give the file"):
        list(read_predictions(results, [longer], IDS, top_k=3))


def test_what_is_missing_is_named(results: Results, tmp_path: Path) -> None:
    absent = BenchmarkVideo(id=5, uri="/videos/b.mp4", positions={}, length=3)
    with pytest.raises(ValueError, match="lacks video 5, /videos/b.mp4; label it first"):
        list(read_predictions(results, [VIDEO, absent], IDS, top_k=1))
    with pytest.raises(ValueError, match="'disc' of video 3 is not a category"):
        list(read_predictions(results, [VIDEO], {"star": 1}, top_k=1))
    with pytest.raises(ValueError, match="track 0 of video 3 has fewer than 4 categories; label with --top 4"):
        list(read_predictions(results, [VIDEO], IDS | {"cube": 1}, top_k=4))
    assert len(list(read_predictions(results, [VIDEO], IDS, top_k=4))) == 4  # there are only three categories
    for run, status, error in ((2, "failed", "not a video file"), (3, "ok", "cut off: about 30 frames")):
        part = Rows()
        part.add("videos", [row("videos", video_id="5", uri=absent.uri, status=status, error=error)])
        part.put(results.storage, part_name(run))
        with pytest.raises(ValueError, match=f"video 5, /videos/b.mp4, is not labelled whole: {error}"):
            list(read_predictions(results, [absent], IDS, top_k=1))
