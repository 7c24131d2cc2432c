from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from pycocotools import mask as coco

from pipelines.results import SCHEMAS, Results
from pipelines.storage import Storage


def row(table: str, **values: Any) -> dict[str, Any]:
    return dict.fromkeys(SCHEMAS[table].names) | {"video_id": "v"} | values


def commit(results: Results, name: str) -> None:
    part = results.part(name)
    part.add("masks", [row("masks", video_id=name, track_id=1, frame=0, rle={"size": [2, 3], "counts": "06"})])
    part.add("masks", [row("masks", video_id=name, track_id=1, frame=1, rle={"size": [2, 3], "counts": "6"})])
    part.add(
        "tracks", [row("tracks", video_id=name, track_id=1, category="star", top=[{"category": "star", "score": 1}])]
    )
    part.add("videos", [row("videos", video_id=name, status="ok")])
    part.commit()


def test_tables_are_read_by_everyone(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    commit(results, "a")
    commit(results, "b")
    assert results.committed_parts() == ["a", "b"]
    assert results.read("masks").num_rows == 4
    assert results.read("masks", video_id="b")["video_id"].to_pylist() == ["b", "b"]
    frame = pd.read_parquet(tmp_path / "masks")
    assert sorted(frame.columns) == sorted(SCHEMAS["masks"].names)
    tracks, masks = (duckdb.read_parquet(f"{tmp_path}/{table}/*.parquet") for table in ("tracks", "masks"))
    assert masks.join(tracks, "video_id, track_id").aggregate("count(*), min(category)").fetchall() == [(4, "star")]
    assert coco.decode(results.read("masks")["rle"][0].as_py()).sum() == 6


def test_a_part_counts_when_its_videos_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash before the last file of a commit leaves nothing that a reader sees, and the next run cleans up."""
    results = Results(Storage(str(tmp_path)))
    commit(results, "a")
    put = Storage.put

    def crash(self: Storage, source: Path, path: str) -> None:
        if path.startswith("videos/"):
            raise RuntimeError("crash")
        put(self, source, path)

    monkeypatch.setattr(Storage, "put", crash)
    with pytest.raises(RuntimeError):
        commit(results, "b")
    assert results.committed_parts() == ["a"]
    assert set(results.read("masks")["video_id"].to_pylist()) == {"a"}
    assert sorted(results.remove_leftovers()) == ["masks/b.parquet", "tracks/b.parquet"]
    assert results.remove_leftovers() == []
    assert results.read("tracks").num_rows == 1


def test_nothing_written_is_an_empty_table(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path / "absent")))
    assert results.read("tracks").schema == SCHEMAS["tracks"]
    assert results.committed_parts() == []


def test_unknown_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'boxes'.*masks"):
        Results(Storage(str(tmp_path))).read("boxes")


def test_removed_parts_do_not_count(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    commit(results, "a")
    results.remove("a")
    assert results.read("videos").num_rows == 0
    assert results.remove_leftovers() == []
