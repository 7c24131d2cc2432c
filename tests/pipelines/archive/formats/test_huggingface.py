from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from pycocotools import mask as coco_mask

from pipelines.archive.export import ExportSummary
from pipelines.archive.formats import huggingface
from tests.pipelines.archive.exports import HEIGHT, SEEN, WIDTH, dense, export


def load(folder: Path, cache: Path) -> Any:
    return datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))


def test_the_folder_is_loaded_by_datasets(labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "_BUFFERED_MASKS", 1)  # a row group for each video
    assert export(labels, tmp_path / "out", "huggingface") == ExportSummary(videos=2, tracks=4)
    data = load(tmp_path / "out", tmp_path / "cache")
    assert data.features["category"] == datasets.ClassLabel(names=["moon", "ring & disc", "star"])
    assert data.features["boxes"] == datasets.List(datasets.List(datasets.Value("int32")))
    assert len(data) == 4
    for row in data:
        track = row["track_id"]
        name, score, frames = SEEN[row["video_id"]][track]
        assert data.features["category"].int2str(row["category"]) == name
        assert row["score"] == pytest.approx(score)
        assert (row["uri"], row["width"], row["height"]) == (f"/videos/{row['video_id']}.mp4", WIDTH, HEIGHT)
        assert row["frames"] == list(frames)
        assert row["times"] == [frame / 10 for frame in frames]
        for frame, box, area, rle in zip(frames, row["boxes"], row["areas"], row["segmentations"], strict=True):
            assert (coco_mask.decode(rle) == dense(track, frame)).all()
            assert (box, area) == ([frame // 3, track, 3, 2], 6)


def test_the_card_says_how_many_tracks_there_are(labels: str, tmp_path: Path) -> None:
    export(labels, tmp_path, "huggingface", min_score=0.3)
    _, front, text = (tmp_path / "README.md").read_text().split("---\n", 2)
    assert "3 tracks of 2 videos" in text
    columns = [feature["name"] for feature in yaml.safe_load(front)["dataset_info"]["features"]]
    assert columns == huggingface._SCHEMA.names
