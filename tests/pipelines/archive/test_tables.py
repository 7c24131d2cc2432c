import pickle
from itertools import combinations
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from pycocotools import mask as coco

from pipelines.archive.compaction import compact
from pipelines.archive.config import CompactConfig
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results, open_labels, read_masks, read_tracks, read_videos
from pipelines.storage import s3
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name, put_part
from tests.pipelines.storage.s3_server import FAULTS, Proxy


def test_tables_are_read_by_everyone(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a")
    put_part(results, part_name(1, 1), "b", "c")
    assert results.parts() == [part_name(1), part_name(1, 1)]
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
    put_part(results, part_name(1), "a")
    put_part(results, part_name(1, 1), "b")
    (tmp_path / table / f"{part_name(1, 1)}.parquet").unlink()
    assert results.parts() == [part_name(1)]
    assert set(results.read("masks")["video_id"].to_pylist()) == {"a"}
    assert results.read("videos")["video_id"].to_pylist() == ["a"]


def test_of_a_video_in_several_parts_the_last_that_is_labelled_counts(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a", "b", category="old")
    put_part(results, part_name(9), "b", "c", category="new")
    put_part(results, part_name(10), "a", "b", status="failed")
    put_part(results, part_name(11), "d", status="failed", error="first")
    put_part(results, part_name(12), "d", status="failed", error="last")
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
    assert results.of_run("000009-00000009") == [part_name(9)]
    assert {part: ids.to_pylist() for part, ids in results.counting().items()} == {
        part_name(1): ["a"],
        part_name(9): ["b", "c"],
        part_name(10): [],
        part_name(11): [],
        part_name(12): ["d"],
    }


def test_runs_follow_one_another(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    first = results.next_run()
    assert first.startswith("000001-")
    put_part(results, f"{first}-{0:012x}", "a")
    put_part(results, part_name(41), "b")
    (tmp_path / "videos" / f"{part_name(41)}.parquet").unlink()  # a leftover is a name that was used, too
    assert results.next_run().startswith("000042-")
    assert results.of_run(first) == [f"{first}-{0:012x}"]


def test_a_reader_follows_parts_that_are_merged_while_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a")
    counting = Results._counting_of

    def merge_meanwhile(self: Results, parts: list[str], video_ids: pa.Array | None = None) -> object:
        found = counting(self, parts, video_ids)
        if parts == [part_name(1)]:
            put_part(Results(self.storage), part_name(2), "a")
            for table in SCHEMAS:
                (tmp_path / table / f"{part_name(1)}.parquet").unlink()
        return found

    monkeypatch.setattr(Results, "_counting_of", merge_meanwhile)
    assert results.read("masks")["video_id"].to_pylist() == ["a", "a"]


@pytest.mark.parametrize("call", range(12))
def test_readers_never_notice_a_compaction(call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done between any two of their calls of the storage."""
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a", "b")
    put_part(results, part_name(1, 1), "c")
    calls: list[str] = []

    def before(name: str) -> None:
        calls.append(name)
        if len(calls) == call + 1:
            monkeypatch.undo()
            compact(CompactConfig(labels=str(tmp_path)))

    sizes, read, read_bytes = Storage.sizes, Storage.read, Storage.read_bytes
    monkeypatch.setattr(Storage, "sizes", lambda self, folder: before("list") or sizes(self, folder))
    monkeypatch.setattr(Storage, "read_bytes", lambda self, path: before("removal") or read_bytes(self, path))
    monkeypatch.setattr(Storage, "read", lambda self, path: before("read") or read(self, path))
    assert sorted(read_tracks(str(tmp_path))["video_id"].to_pylist()) == ["a", "b", "c"]
    monkeypatch.undo()
    assert len(calls) == (call + 1 if call < 9 else 9)  # three lists between two looks, two parts of two tables
    assert len(results.parts()) == (1 if call < 9 else 2)


@pytest.mark.parametrize("moments", list(combinations(range(6), 2)))
def test_two_compactions_in_a_row_hide_nothing_from_a_slow_listing(
    moments: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder's listing has no order: of what changes meanwhile, it may show neither the old nor the new."""
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a")
    listings, sizes = list[str](), Storage.sizes

    def slow(self: Storage, folder: str) -> list[tuple[str, int]]:
        before = set(sizes(self, folder))
        listings.append(folder)
        if len(listings) - 1 in moments:
            with monkeypatch.context() as patch:
                patch.setattr(Storage, "sizes", sizes)
                put_part(results, results.next_run() + "-000000000000", f"v{len(listings)}")
                compact(CompactConfig(labels=str(tmp_path)))
        return list(before.intersection(sizes(self, folder)))

    monkeypatch.setattr(Storage, "sizes", slow)
    (part,) = results.parts()
    assert len(listings) <= 9  # once more for each compaction
    monkeypatch.undo()
    assert results.parts() == [part]
    assert "a" in results.read("videos")["video_id"].to_pylist()


def test_parts_that_come_faster_than_they_are_listed_do_not_detain_a_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a")
    listings, names = list[str](), Results.names

    def add_meanwhile(self: Results, table: str) -> list[str]:
        listings.append(table)
        assert len(listings) < 9
        found = list(names(self, table))
        put_part(results, part_name(1, len(listings)), f"v{len(listings)}")
        return found

    monkeypatch.setattr(Results, "names", add_meanwhile)
    assert results.parts() == [part_name(1)]
    assert len(listings) == 3
    listings.clear()

    def fail(self: Storage, path: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Storage, "read", fail)
    with pytest.raises(FileNotFoundError):  # nothing was removed, so reading again would be in vain
        results.read("tracks")


def test_files_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a")
    put_part(results, part_name(2), "b")
    mine = tmp_path / "videos" / "manifest.parquet"
    mine.write_bytes(b"mine")
    assert results.parts() == [part_name(1), part_name(2)]
    compact(CompactConfig(labels=str(tmp_path)))
    assert mine.read_bytes() == b"mine"


def test_numbers_of_runs_are_numbers(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(999_999), "a", category="old")
    assert results.next_run().startswith("1000000-")
    put_part(results, part_name(1_000_000), "a", category="new")
    assert results.read("tracks")["category"].to_pylist() == ["new"]


def test_nothing_written_is_an_empty_table(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path / "absent")))
    assert [results.read(table).schema for table in SCHEMAS] == list(SCHEMAS.values())
    assert results.parts() == []


def test_some_videos_are_found_among_parts(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a", "b")
    put_part(results, part_name(2), "a", "c")
    found = {part: ids.to_pylist() for part, ids in results.counting(pa.array(["a", "b", "x"])).items()}
    assert found == {part_name(1): ["b"], part_name(2): ["a"]}
    assert len(results.scan("masks", ("frame",), video_ids=["a", "c"])) == 1


def test_what_is_known_of_parts_does_not_go_with_tasks(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    empty = pickle.dumps(results)
    put_part(results, part_name(1), "a", "b")
    assert results.read("videos").num_rows == 2
    assert pickle.dumps(results) == empty
    assert pickle.loads(empty).read("videos").num_rows == 2


def test_videos_of_other_models_are_found(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a", "b", model_fingerprint="mine")
    put_part(results, part_name(2), "c", model_fingerprint="other")
    put_part(results, part_name(3), "d", status="failed", model_fingerprint="other")
    assert results.of_other_models("mine").to_pylist() == ["c"]
    with pytest.raises(ValueError, match="^checkpoint: all 3 videos in .* were labelled with another model; give the"):
        results.of_other_models("third")


def test_labels_that_are_no_labels_are_named(tmp_path: Path, s3_environment: None) -> None:
    for labels in (str(tmp_path), str(tmp_path / "absent")):
        with pytest.raises(ValueError, match=f"^labels: {labels} has no labels; give the output of a labelling run"):
            open_labels(labels)
    with pytest.raises(ValueError, match="^labels: s3://absent-bucket/a.*: there is no such bucket; check its name"):
        open_labels("s3://absent-bucket/a")


def test_unknown_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'boxes'.*masks"):
        Results(Storage(str(tmp_path))).read("boxes")


def test_outputs_on_s3(bucket: str, proxy: Proxy) -> None:
    output = f"{bucket}/labels of/2026"
    results = Results(Storage(output))
    results.check_writable()
    with pytest.raises(ValueError, match="output: s3://.* does not exist; give the output of a labelling run"):
        read_videos(output)
    put_part(results, part_name(1), "a")
    put_part(results, part_name(1, 1), "b", "c")
    puts = [path.rpartition("2026/")[2] for method, path in proxy.requests if method == "PUT"][-3:]
    assert puts == [f"{table}/{part_name(1, 1)}.parquet" for table in ("masks", "tracks", "videos")]
    assert [each(output).num_rows for each in (read_videos, read_tracks, read_masks)] == [3, 3, 6]
    results.counting()
    proxy.requests.clear()
    assert results.read("masks", video_id="b")["video_id"].to_pylist() == ["b", "b"]
    assert len([path for method, path in proxy.requests if path.endswith(f"masks/{part_name(1, 1)}.parquet")]) <= 2
    assert not [path for method, path in proxy.requests if "videos/0" in path]  # known already


@pytest.mark.nightly
def test_tables_on_s3_survive_every_fault(bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.3)
    s3._client.cache_clear()
    results = Results(Storage(f"{bucket}/labels"))
    for part in range(4):
        put_part(results, part_name(1, part), *(f"v{part}{video}" for video in range(9)))
    expected = {table: results.read(table) for table in SCHEMAS}
    proxy.share = dict.fromkeys(FAULTS, 0.06)
    for _ in range(2):
        assert {table: Results(results.storage).read(table) for table in SCHEMAS} == expected
    assert set(proxy.spoiled) >= {"cut", "reset"}
