from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from trackeval.datasets import MOTSChallenge
from trackeval.metrics import HOTA

from pipelines.archive.export import ExportSummary
from pipelines.archive.formats.video_labels import OVERLAPS
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.exports import HEIGHT, WIDTH, export, put
from tests.pipelines.archive.labels import part_name

FRAMES = (0, 3, 6, 9)


def box(track: int, frame: int) -> np.ndarray:
    """Two columns for a track; the second track begins in the first one's second column."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[frame // 3 : frame // 3 + 2, track : track + 2] = 1
    return mask


@pytest.fixture
def people(tmp_path: Path) -> str:
    results = Results(Storage(str(tmp_path / "labels")))
    tracks = {0: ("person", 0.5, FRAMES), 1: ("person", 0.9, FRAMES[1:]), 4: ("star", 0.4, (3,)), 6: ("car", 0.3, (3,))}
    put(results, part_name(1), {"a": tracks, "b": {3: ("person", 0.2, (0,))}}, draw=box)
    return results.storage.root


def reader(folder: Path) -> Any:
    """TrackEval's, for which the export is both ground truth and a tracker."""
    config = {
        "GT_FOLDER": str(folder),
        "TRACKERS_FOLDER": str(folder.parent),
        "TRACKERS_TO_EVAL": [folder.name],
        "GT_LOC_FORMAT": "{gt_folder}/data/{seq}.txt",
        "SKIP_SPLIT_FOL": True,
        "PRINT_CONFIG": False,
    }
    return MOTSChallenge(config)


def test_mots_is_read_by_trackeval(people: str, tmp_path: Path) -> None:
    losses = (f"{OVERLAPS}: 1 track (a/0)",)
    assert export(people, tmp_path / "out", "mots") == ExportSummary(videos=2, tracks=5, losses=losses)
    trackeval = reader(tmp_path / "out")
    assert (trackeval.seq_list, trackeval.seq_lengths) == (["a", "b"], {"a": 10, "b": 10})
    raw = trackeval.get_raw_seq_data("out", "a")
    classes = dict(reversed(line.split(" ", 1)) for line in (tmp_path / "out/classes.txt").read_text().splitlines())
    assert classes == {"car": "1", "person": "2", "star": "13"}
    for at in range(10):
        numbers = zip(raw["gt_ids"][at], raw["gt_classes"][at], raw["gt_dets"][at], strict=True)
        found = {int(track): (str(number), coco_mask.decode(rle)) for track, number, rle in numbers}
        expected = {} if at % 3 else {0: box(0, at)}
        if at in FRAMES[1:]:
            expected |= {0: box(0, at) & ~box(1, at), 1: box(1, at)}
        if at == 3:
            expected |= {4: box(4, at), 6: box(6, at)}
        assert found.keys() == expected.keys()
        for track, (number, mask) in found.items():
            assert number == classes[{4: "star", 6: "car"}.get(track, "person")]
            assert (mask == expected[track]).all()
    data = trackeval.get_preprocessed_seq_data(raw, "pedestrian")
    assert (data["num_gt_ids"], data["num_gt_dets"]) == (2, 7)
    assert HOTA({"PRINT_CONFIG": False}).eval_sequence(data)["HOTA"] == pytest.approx(1)


def test_a_mask_that_is_hidden_altogether_is_told(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path / "labels")))
    tracks = {track: ("person", score, (0, 3)) for track, score in enumerate((0.2, 0.4))}
    put(results, part_name(1), {"a": tracks}, draw=lambda track, frame: box(0, 0))
    assert export(results.storage.root, tmp_path / "out", "mots").losses == (f"{OVERLAPS}: 1 track (a/0)",)
    assert list(map(len, reader(tmp_path / "out").get_raw_seq_data("out", "a")["gt_ids"])) == [1, 0, 0, 1, *[0] * 6]


def test_files_of_an_earlier_export_do_not_stay(people: str, tmp_path: Path) -> None:
    export(people, tmp_path / "out", "mots")
    (tmp_path / "out/data/mine.txt").write_text("mine")
    export(people, tmp_path / "out", "mots", min_score=0.3)
    files = sorted(str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.*"))
    assert files == ["a/seqinfo.ini", "classes.txt", "data/a.txt", "data/mine.txt", "seqmaps/MOTS-train.txt"]
