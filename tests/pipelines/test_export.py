from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets.annotations import AnnotatedVideo, Category, Mask
from pipelines.export import BenchmarkVideo, category_ids, find_benchmark_videos, read_predictions
from pipelines.parts import Rows
from pipelines.results import SCHEMAS, Results
from pipelines.storage import Storage
from tests.pipelines.clips import write_images
from tests.pipelines.labels import part_name

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
    for table, rows in (("tracks", tracks), ("masks", masks), ("videos", [row("videos", status="ok", uri=VIDEO.uri)])):
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


def test_what_is_missing_is_named(results: Results, tmp_path: Path) -> None:
    absent = BenchmarkVideo(id=5, uri="/videos/b.mp4", positions={}, length=3)
    with pytest.raises(ValueError, match="lacks video 5, /videos/b.mp4; label it first"):
        list(read_predictions(results, [VIDEO, absent], IDS, top_k=1))
    with pytest.raises(ValueError, match="'disc' of video 3 is no category"):
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


def video(**values: Any) -> AnnotatedVideo:
    return AnnotatedVideo(**({"id": 1, "height": 96, "width": 128, "length": 2} | values))


def test_encoded_files_and_folders_of_images_are_found(tmp_path: Path) -> None:
    write_images(tmp_path / "b", 12)
    (tmp_path / "a.mp4").touch()
    images = video(id=2, file_names=("b/frame_2.png", "b/frame_10.png"))
    found = find_benchmark_videos([video(video="a.mp4"), images], str(tmp_path))
    assert [each.uri for each in found] == [str(tmp_path / "a.mp4"), str(tmp_path / "b")]
    assert [dict(each.positions) for each in found] == [{0: 0, 1: 1}, {2: 0, 10: 1}]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"video": "a.mp4"}, "a.mp4 is not there, video 1"),
        ({"file_names": ("c/1.png",)}, "c is not there, video 1"),
        ({"file_names": ("b/frame_0.png", "b/frame_7.png", "b/frame_8.png")}, "lacks frame_7.png and 1 more"),
        ({"file_names": ("b/frame_0.png", "c/frame_0.png")}, "frames in 2 folders"),
    ],
)
def test_videos_that_are_not_there_are_named(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_images(tmp_path / "b", 3)
    with pytest.raises(ValueError, match=message):
        find_benchmark_videos([video(**values)], str(tmp_path))


def test_category_names_become_those_of_a_vocabulary() -> None:
    categories = [Category(id=5, name="traffic_light"), Category(id=2, name="Polo  shirt")]
    assert category_ids(categories) == {"traffic light": 5, "Polo shirt": 2}
    with pytest.raises(ValueError, match="5 and 9 are both 'traffic light'"):
        category_ids([*categories, Category(id=9, name="traffic light")])
    with pytest.raises(ValueError, match="9 is called 'lamp, street'"):
        category_ids([Category(id=9, name="lamp, street")])
