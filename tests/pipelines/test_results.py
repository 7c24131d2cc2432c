from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from pycocotools import mask as coco

from pipelines.parts import Rows
from pipelines.results import SCHEMAS, Results, read_masks, read_tracks, read_videos
from pipelines.storage import Storage
from tests.pipelines.conftest import Put
from tests.pipelines.labels import put_part, row
from tests.pipelines.s3_server import Proxy


def test_tables_are_read_by_everyone(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, "1-x", "a")
    put_part(results, "1-y", "b", "c")
    assert results.parts() == ["1-x", "1-y"]
    assert [each(str(tmp_path)).num_rows for each in (read_videos, read_tracks, read_masks)] == [3, 3, 6]
    assert results.read("masks", video_id="b")["video_id"].to_pylist() == ["b", "b"]
    assert results.read("masks", video_id="d").num_rows == 0
    frame = pd.read_parquet(tmp_path / "masks")
    assert sorted(frame.columns) == sorted(SCHEMAS["masks"].names)
    tracks, masks = (duckdb.read_parquet(f"{tmp_path}/{table}/*.parquet") for table in ("tracks", "masks"))
    assert masks.join(tracks, "video_id, track_id").aggregate("count(*), min(category)").fetchall() == [(6, "star")]
    assert coco.decode(results.read("masks")["rle"][0].as_py()).sum() == 6


@pytest.mark.parametrize("table", SCHEMAS)
def test_a_part_counts_when_all_its_files_are_there(table: str, tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, "1-x", "a")
    put_part(results, "1-y", "b")
    (tmp_path / table / "1-y.parquet").unlink()
    assert results.parts() == ["1-x"]
    assert set(results.read("masks")["video_id"].to_pylist()) == {"a"}
    assert results.read("videos")["video_id"].to_pylist() == ["a"]


def test_of_a_video_in_several_parts_the_last_that_is_labelled_counts(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, "000001-x", "a", "b", category="old")
    put_part(results, "000009-x", "b", "c", category="new")
    put_part(results, "000010-x", "a", "b", status="failed")
    put_part(results, "000011-x", "d", status="failed", error="first")
    put_part(results, "000012-x", "d", status="failed", error="last")
    found = {each["video_id"]: each for each in results.read("videos").to_pylist()}
    assert {name: (each["status"], each["error"]) for name, each in found.items()} == {
        "a": ("ok", None),
        "b": ("ok", None),
        "c": ("ok", None),
        "d": ("failed", "last"),
    }
    tracks = results.read("tracks").to_pylist()
    assert sorted((each["video_id"], each["category"]) for each in tracks) == [("a", "old"), ("b", "new"), ("c", "new")]
    assert [each["category"] for each in results.read("tracks", video_id="b").to_pylist()] == ["new"]
    assert results.read("masks").num_rows == 6
    assert results.of_run("000009") == ["000009-x"]
    assert {part: ids.to_pylist() for part, ids in results.counting().items()} == {
        "000001-x": ["a"],
        "000009-x": ["b", "c"],
        "000010-x": [],
        "000011-x": [],
        "000012-x": ["d"],
    }


def test_runs_follow_one_another(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    first = results.next_run()
    assert first.startswith("000001-")
    put_part(results, f"{first}-x", "a")
    put_part(results, "000041-abc-x", "b")
    (tmp_path / "videos" / "000041-abc-x.parquet").unlink()  # a leftover is a name that was used, too
    assert results.next_run().startswith("000042-")
    assert results.of_run(first) == [f"{first}-x"]


def test_a_reader_follows_parts_that_are_merged_while_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, "1-x", "a")
    results.read("videos")
    counting = Results.counting

    def merge_meanwhile(self: Results) -> object:
        found = counting(self)
        if "1-x" in self.parts():
            put_part(Results(self.storage), "2-x", "a")
            for table in SCHEMAS:
                (tmp_path / table / "1-x.parquet").unlink()
        return found

    monkeypatch.setattr(Results, "counting", merge_meanwhile)
    assert results.read("masks")["video_id"].to_pylist() == ["a", "a"]


def test_only_row_groups_of_a_video_are_read(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    rows = Rows()
    names = ["a", "b", "c"]
    for name in names:
        rows.add("masks", [row("masks", video_id=name, frame=frame) for frame in range(9000)])
        rows.add("videos", [row("videos", video_id=name, status="ok")])
    rows.put(results.storage, "1-x")
    wanted = pa.array(["b"])
    read = list(results.row_groups("masks", "1-x", wanted))
    assert [group.num_rows for group in read] == [9000]
    assert results.read("masks", video_id="b").num_rows == 9000


def test_nothing_written_is_an_empty_table(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path / "absent")))
    assert [results.read(table).schema for table in SCHEMAS] == list(SCHEMAS.values())
    assert results.parts() == []


def test_unknown_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'boxes'.*masks"):
        Results(Storage(str(tmp_path))).read("boxes")


def test_outputs_on_s3(bucket: str, proxy: Proxy) -> None:
    output = f"{bucket}/labels of/2026"
    results = Results(Storage(output))
    results.check_writable()
    with pytest.raises(ValueError, match="output: s3://.* is not there; give the output of a labelling run"):
        read_videos(output)
    put_part(results, "1-x", "a")
    put_part(results, "1-y", "b", "c")
    puts = [path.rpartition("2026/")[2] for method, path in proxy.requests if method == "PUT"][-3:]
    assert puts == [f"{table}/1-y.parquet" for table in ("masks", "tracks", "videos")]
    assert [each(output).num_rows for each in (read_videos, read_tracks, read_masks)] == [3, 3, 6]
    results.counting()
    proxy.requests.clear()
    assert results.read("masks", video_id="b")["video_id"].to_pylist() == ["b", "b"]
    assert len([path for method, path in proxy.requests if path.endswith("masks/1-y.parquet")]) <= 2
    assert not [path for method, path in proxy.requests if "videos/1-" in path]  # known already


def test_a_damaged_part_on_s3_is_named(bucket: str, put: Put) -> None:
    for table in SCHEMAS:
        put(f"{bucket}/labels/{table}/1-x.parquet", b"junk")
    with pytest.raises(ValueError, match=f"{bucket}/labels/videos/1-x.parquet: damaged .*; remove it"):
        read_videos(f"{bucket}/labels")
