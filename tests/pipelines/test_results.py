from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco

from pipelines.results import SCHEMAS, Results, read_masks, read_tracks, read_videos
from pipelines.storage import Storage
from tests.pipelines.conftest import Put
from tests.pipelines.s3_server import Proxy


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
    assert [each(str(tmp_path)).num_rows for each in (read_videos, read_tracks, read_masks)] == [2, 2, 4]
    assert results.read("masks", video_id="b")["video_id"].to_pylist() == ["b", "b"]
    frame = pd.read_parquet(tmp_path / "masks")
    assert sorted(frame.columns) == sorted(SCHEMAS["masks"].names)
    tracks, masks = (duckdb.read_parquet(f"{tmp_path}/{table}/*.parquet") for table in ("tracks", "masks"))
    assert masks.join(tracks, "video_id, track_id").aggregate("count(*), min(category)").fetchall() == [(4, "star")]
    assert coco.decode(results.read("masks")["rle"][0].as_py()).sum() == 6


def crash_at(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    """Lets a commit break off before it puts this table's file in place."""
    put = Storage.put

    def crash(self: Storage, source: Path, path: str) -> None:
        if path.startswith(f"{table}/"):
            raise RuntimeError("crash")
        put(self, source, path)

    monkeypatch.setattr(Storage, "put", crash)


def test_a_part_counts_when_its_videos_file_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash before the last file of a commit leaves nothing that a reader sees, and the next run cleans up."""
    results = Results(Storage(str(tmp_path)))
    commit(results, "a")
    crash_at(monkeypatch, "videos")
    with pytest.raises(RuntimeError):
        commit(results, "b")
    assert results.committed_parts() == ["a"]
    assert set(results.read("masks")["video_id"].to_pylist()) == {"a"}
    assert sorted(results.remove_leftovers()) == ["masks/b.parquet", "tracks/b.parquet"]
    assert results.remove_leftovers() == []
    assert results.read("tracks").num_rows == 1


@pytest.mark.parametrize("table", ["masks", "tracks", "videos"])
def test_a_part_that_is_replaced_never_counts_half(table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = Results(Storage(str(tmp_path)))
    commit(results, "a")
    commit(results, "b")
    commit(results, "a")
    assert results.committed_parts() == ["a", "b"]
    crash_at(monkeypatch, table)
    with pytest.raises(RuntimeError):
        commit(results, "a")
    assert results.committed_parts() == ["b"]
    assert len(results.remove_leftovers()) == 2


def test_rows_of_many_batches_share_row_groups(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    part = results.part("v")
    for frame in range(30):
        part.add("masks", [row("masks", track_id=track, frame=frame) for track in range(500)])
    part.commit()
    file = pq.ParquetFile(tmp_path / "masks" / "v.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [8500, 6500]
    assert file.read(columns=["frame"])["frame"].to_pylist() == [frame for frame in range(30) for _ in range(500)]


def test_adding_nothing_keeps_nothing(tmp_path: Path) -> None:
    """Most frames end no track: what is kept of them would grow with the video."""
    part = Results(Storage(str(tmp_path))).part("v")
    for _ in range(100):
        part.add("tracks", [])
    assert part._held["tracks"].column("track_id").num_chunks <= 1
    part.discard()


def test_nothing_written_is_an_empty_table(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path / "absent")))
    assert results.read("tracks").schema == SCHEMAS["tracks"]
    assert results.committed_parts() == []


def test_unknown_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'boxes'.*masks"):
        Results(Storage(str(tmp_path))).read("boxes")


def test_outputs_on_s3(bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder: what counts is put in place last, and leftovers are found by listing, whatever the number."""
    output = f"{bucket}/labels of/2026"
    results = Results(Storage(output))
    results.check_writable()
    with pytest.raises(ValueError, match="output: s3://.* is not there; give the output of a labelling run"):
        read_videos(output)
    commit(results, "a")
    commit(results, "b")
    puts = [path.rpartition("2026/")[2] for method, path in proxy.requests if method in ("PUT", "DELETE")][-4:]
    assert puts == [f"{table}/b.parquet" for table in ("videos", "masks", "tracks", "videos")]
    assert [each(output).num_rows for each in (read_videos, read_tracks, read_masks)] == [2, 2, 4]
    assert results.read("masks", video_id="b")["video_id"].to_pylist() == ["b", "b"]
    assert results.read("masks", video_id="c").num_rows == 0
    crash_at(monkeypatch, "videos")
    for name in ("b", "c"):
        with pytest.raises(RuntimeError):
            commit(results, name)
    assert results.committed_parts() == ["a"]
    assert ((results.video("a") or {})["status"], results.video("b")) == ("ok", None)
    proxy.requests.clear()
    removed = [f"{table}/{name}.parquet" for table in ("masks", "tracks") for name in ("b", "c")]
    assert sorted(results.remove_leftovers()) == removed
    assert (proxy.count("GET"), proxy.count("DELETE"), len(proxy.requests)) == (3, 4, 7)
    assert results.remove_leftovers() == []
    assert read_masks(output).num_rows == 2


def test_a_damaged_part_on_s3_is_named(bucket: str, put: Put) -> None:
    put(f"{bucket}/labels/videos/a.parquet", b"junk")
    with pytest.raises(ValueError, match=f"{bucket}/labels/videos/a.parquet: damaged .*; remove it"):
        read_videos(f"{bucket}/labels")
