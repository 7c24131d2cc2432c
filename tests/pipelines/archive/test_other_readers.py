"""Programs that nobody here wrote read an output while it changes."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from pipelines.archive import spool
from pipelines.archive.compaction import compact
from pipelines.archive.config import CompactConfig
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results, read_tracks
from pipelines.storage.files import Storage
from tests.pipelines.archive.delta import connection
from tests.pipelines.archive.labels import part_name, put_part
from tests.pipelines.archive.relabelling import ROUNDS, TRACKS

Read = Callable[[str, str, int], Iterable[str]]
"""Returns the ids of all rows of a table in a version."""


def by_deltalake(output: str, table: str, version: int) -> Iterable[str]:
    rows = DeltaTable(f"{output}/{table}", version, connection(output)).to_pyarrow_table(columns=["video_id"])
    return list(rows["video_id"].to_pylist())


def by_pandas(output: str, table: str, version: int) -> Iterable[str]:
    return list(DeltaTable(f"{output}/{table}", version, connection(output)).to_pandas()["video_id"])


def by_polars(output: str, table: str, version: int) -> Iterable[str]:
    rows = pl.scan_delta(f"{output}/{table}", version=version, storage_options=connection(output))
    return rows.select("video_id").collect()["video_id"].to_list()


def by_duckdb(output: str, table: str, version: int) -> Iterable[str]:
    """Through Arrow: its own extension for Delta Lake has to be downloaded."""
    rows = DeltaTable(f"{output}/{table}", version, connection(output)).to_pyarrow_dataset()
    return [name for (name,) in duckdb.connect().from_arrow(rows).select("video_id").fetchall()]


READERS: list[Read] = [by_deltalake, by_pandas, by_polars, by_duckdb]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", pytest.param("s3", marks=pytest.mark.nightly)])
def test_none_sees_a_video_twice_or_missing_while_an_output_is_relabelled_and_compacted(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    root = str(tmp_path) if place == "folder" else request.getfixturevalue("bucket")
    output = f"{root}/new"
    (tmp_path / "names.txt").write_text("red star\nblue ring\n")
    words = ["-m", "tests.pipelines.archive.relabelling", f"{root}/labels", output, str(tmp_path / "names.txt")]
    writer = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
    polls, seen, known = Counter[int](), set[str](), -1
    try:
        while writer.poll() is None or known < 0 or polls[known] < 2:
            try:
                version = DeltaTable(f"{output}/videos", storage_options=connection(output)).version()
            except TableNotFoundError:
                assert known < 0
                assert writer.poll() in (None, 0), writer.communicate()[1]
                continue
            assert version >= known
            known = version
            read = READERS[sum(polls.values()) % len(READERS)]
            videos, tracks, masks = (Counter(read(output, table, version)) for table in ("videos", "tracks", "masks"))
            assert set(videos.values()) == {1}, read
            assert tracks == masks == dict.fromkeys(videos, TRACKS), read
            assert seen <= videos.keys(), read
            seen |= videos.keys()
            polls[version] += 1
            for table in ("tracks", "masks"):  # the newest version, which may be newer than that of `videos`
                newest = DeltaTable(f"{output}/{table}", storage_options=connection(output)).to_pyarrow_table()
                rows = Counter(newest["video_id"].to_pylist())
                assert set(rows.values()) == {TRACKS}
                assert seen <= rows.keys()
    finally:
        writer.kill()
        _, errors = writer.communicate()
    assert writer.returncode == 0, errors
    assert len(polls) > ROUNDS
    assert len(seen) == 3 * ROUNDS


@pytest.fixture
def output(tmp_path: Path) -> str:
    """Labelled, labelled again, compacted: the folders have files that no longer count."""
    results = Results(Storage(f"{tmp_path}/labels"))
    put_part(results, part_name(1), "a", "b", category="old")
    compact(CompactConfig(labels=results.storage.root))
    put_part(results, part_name(2), "b", "c", category="new")
    put_part(results, part_name(2, 1), "d", status="failed", tracks=0)
    compact(CompactConfig(labels=results.storage.root))
    assert len(list(results.names("tracks"))) > len(results.parts()) == 1
    return results.storage.root


@pytest.mark.parametrize("table", SCHEMAS)
@pytest.mark.parametrize("read", READERS)
def test_each_reads_what_counts(read: Read, table: str, output: str) -> None:
    version = DeltaTable(f"{output}/{table}").version()
    ours = Results(Storage(output)).read(table)["video_id"].to_pylist()
    assert sorted(read(output, table, version)) == sorted(ours)


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["video_id"])


def test_each_reads_all_columns(output: str) -> None:
    ours = in_order(read_tracks(output).to_pylist())
    assert in_order(pl.read_delta(f"{output}/tracks").to_dicts()) == ours
    table = DeltaTable(f"{output}/tracks")
    assert in_order(table.to_pyarrow_table().to_pylist()) == ours
    assert in_order(pa.Table.from_pandas(table.to_pandas()).to_pylist()) == ours
    assert duckdb.connect().from_arrow(table.to_pyarrow_dataset()).aggregate("count(*)").fetchall() == [(3,)]


def test_hugging_face_loads_the_files_that_count(output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    files = DeltaTable(f"{output}/tracks").file_uris()
    ours = in_order(read_tracks(output).to_pylist())
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert in_order(loaded.to_list()) == ours
    streamed = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    assert in_order(list(streamed)) == ours


def test_an_engine_reads_only_parts_that_may_have_a_video(output: str) -> None:
    results = Results(Storage(output))
    put_part(results, part_name(9), "x", "y", category="late")
    compact(CompactConfig(labels=output, part_mb=1e-6))
    table = DeltaTable(f"{output}/tracks")
    for name, wanted in (("x", 1), ("b", 1)):
        dataset = table.to_pyarrow_dataset()
        files = list(dataset.get_fragments(filter=pc.field("video_id") == name))
        assert len(files) == wanted < len(table.file_uris())


def test_an_engine_skips_row_groups_of_other_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "ROW_GROUP", 8)
    names = [f"v{i * 7 % 40:02}" for i in range(40)]  # in the order in which they are finished
    put_part(Results(Storage(str(tmp_path))), part_name(1), *names[:20])
    put_part(Results(Storage(str(tmp_path))), part_name(1, 1), *names[20:])
    compact(CompactConfig(labels=str(tmp_path)))
    table = DeltaTable(tmp_path / "masks")
    adds = pa.table(table.get_add_actions(flatten=True))
    assert adds.select(["min.video_id", "max.video_id"]).to_pylist() == [{"min.video_id": "v00", "max.video_id": "v39"}]
    fragments = list(table.to_pyarrow_dataset().get_fragments())
    wanted = [fragment.split_by_row_group(pc.field("video_id") == "v21") for fragment in fragments]
    assert [len(groups) for groups in wanted] == [1]
    assert sum(len(fragment.split_by_row_group()) for fragment in fragments) == 10
    query = "select count(*) from masks where video_id = 'v21'"
    masks = table.to_pyarrow_dataset()
    assert duckdb.connect().register("masks", masks).execute(query).fetchall() == [(2,)]
