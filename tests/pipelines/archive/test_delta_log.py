import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from pipelines.archive import delta_log
from pipelines.archive.delta_log import FOLDER, OtherWriterError, TableLog
from pipelines.archive.parts import Rows
from pipelines.archive.tables import Results
from pipelines.storage import s3
from pipelines.storage.files import Storage
from tests.pipelines.archive.damage import damage_footer
from tests.pipelines.archive.delta import connection, read_table
from tests.pipelines.archive.labels import part_name, put_part, row
from tests.pipelines.storage.s3_server import Proxy


@pytest.fixture
def results(tmp_path: Path) -> Results:
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a", "b")
    put_part(results, part_name(1, 1), "c", category="ring")
    put_part(results, part_name(2), "d", status="failed", tracks=0)
    return results


def committed(storage: Storage, *versions: list[str], table: str = "tracks") -> TableLog:
    for parts in versions:
        log = TableLog(storage, table)
        log.commit(parts, "me", data_change=True)
    return log


def test_a_version_lists_exactly_its_parts(results: Results) -> None:
    assert (TableLog(results.storage, "tracks").version, TableLog(results.storage, "tracks").parts) == (-1, set())
    one, two, failed = results.parts()
    log = committed(results.storage, [one], [two, failed])
    assert (log.version, log.parts) == (1, {two, failed})
    again = TableLog(results.storage, "tracks", 0)
    assert (again.version, again.parts) == (0, {one})
    root = results.storage.root
    assert read_table(root, "tracks")["video_id"].to_pylist() == ["c"]
    assert sorted(read_table(root, "tracks", 0)["video_id"].to_pylist()) == ["a", "b"]
    for version in (2, -1):
        with pytest.raises(ValueError, match=f"version: {root}/tracks/_delta_log has no version {version}"):
            TableLog(results.storage, "tracks", version)
    with pytest.raises(ValueError, match="version: .*masks/_delta_log has no version 0$"):
        TableLog(results.storage, "masks", 0)


def test_a_version_tells_who_committed_it_and_how_many_parts_of_a_run_it_has(results: Results) -> None:
    one, two, failed = results.parts()
    committed(results.storage, [one], [one, two, failed])
    table = DeltaTable(f"{results.storage.root}/tracks")
    assert [each["openvis"] for each in table.history()] == ["me", "me"]
    assert table.transaction_version("000001-00000001") == 2
    assert table.transaction_version("000002-00000002") == 1


def test_engines_can_skip_parts_by_video_category_and_score(tmp_path: Path) -> None:
    storage, rows = Storage(str(tmp_path)), Rows()
    for start in range(0, 3 * 8192, 8192):  # row groups
        names = [f"v{i:05}" for i in range(start, start + 8192)]
        scores = np.linspace(start / 1e5, start / 1e5 + 0.05, 8192, dtype=np.float32)
        known = {"video_id": names, "category": ["é" if start else "disc"] * 8192, "score": scores.tolist()}
        rows.add(
            "tracks",
            [row("tracks", **dict(zip(known, each, strict=True))) for each in zip(*known.values(), strict=True)],
        )
    rows.add("tracks", [row("tracks", video_id="w")])  # without category and score
    rows.put(storage, part_name(1))
    put_part(Results(storage), part_name(2), "d", status="failed", tracks=0)
    committed(storage, [part_name(1), part_name(2)])
    adds = pa.table(DeltaTable(str(tmp_path / "tracks")).get_add_actions(flatten=True)).sort_by("path").to_pylist()
    first = {name: adds[0][name] for name in adds[0] if name.startswith(("num", "min", "max", "null"))}
    assert {name: value for name, value in first.items() if value is not None} == {
        "num_records": 3 * 8192 + 1,
        "min.video_id": "v00000",
        "max.video_id": "w",
        "null_count.video_id": 0,
        "min.category": "disc",
        "max.category": "é",
        "null_count.category": 1,
        "min.score": 0.0,
        "max.score": pytest.approx(2 * 8192 / 1e5 + 0.05),
        "null_count.score": 1,
    }
    assert (adds[1]["num_records"], adds[1]["min.video_id"]) == (0, None)


@pytest.mark.parametrize("every", [3, 100])
def test_checkpoints_change_nothing(every: int, results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delta_log, "CHECKPOINT_EVERY", every)
    parts = results.parts()
    versions = [parts[: 1 + number % 3] for number in range(8)]
    committed(results.storage, *versions)
    checkpoints = [path for path in results.storage.list(f"tracks/{FOLDER}") if "checkpoint" in path]
    assert len(checkpoints) == (3 if every == 3 else 0)  # and where the last one is
    for number, wanted in enumerate(versions):
        assert TableLog(results.storage, "tracks", number).parts == set(wanted)
        assert read_table(results.storage.root, "tracks", number).num_rows == min(len(wanted) + 1, 3)
    assert TableLog(results.storage, "tracks").parts == set(versions[-1])
    assert len(list((TableLog(results.storage, "tracks")._copy / FOLDER).iterdir())) == (3 if every == 3 else 8)


def test_of_two_that_commit_the_same_version_one_learns_of_it(results: Results) -> None:
    one, two, _ = results.parts()
    for _ in range(2):  # the first version, and a later one
        first, second = TableLog(results.storage, "tracks"), TableLog(results.storage, "tracks")
        first.commit([one], "first", data_change=True)
        with pytest.raises(OtherWriterError):
            second.commit([one, two], "second", data_change=True)
        assert TableLog(results.storage, "tracks").parts == {one}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda log: (log / f"{1:020}.json").write_bytes(b"{junk"), "cannot be read \\(Kernel error: Json error"),
        (lambda log: (log / f"{1:020}.json").unlink(), "cannot be read .*gap"),
        (lambda log: (log / f"{0:020}.json").unlink(), "cannot be read"),
        (lambda log: change_protocol(log, 3, 7), "another program changed it, protocol 3/7 is newer than 1/2"),
        (lambda log: change_protocol(log, 1, 7), "another program changed it, protocol 1/7 is newer than 1/2"),
        (lambda log: change_protocol(log, 99, 99), "cannot be read .*Unsupported minimum reader version 99"),
        (lambda log: change(log, '\\"score\\"', '\\"rank\\"'), "has other columns"),
    ],
)  # fmt: skip
def test_a_log_that_cannot_be_used_is_refused(damage: object, reason: str, results: Results) -> None:
    one, two, _ = results.parts()
    committed(results.storage, [one], [one, two], [two])
    assert callable(damage)
    damage(Path(results.storage.root, "tracks", FOLDER))
    with pytest.raises(ValueError, match=f"{FOLDER}: .*{reason}.*; start a new log with jobs.compact --repair true"):
        TableLog(results.storage, "tracks")


def change_protocol(log: Path, reader: int, writer: int) -> None:
    protocol = {"minReaderVersion": reader, "minWriterVersion": writer}
    features = {3: {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}}
    features |= {1: {"writerFeatures": ["appendOnly"]}}
    action = json.dumps({"protocol": protocol | features.get(reader, {})})
    (log / f"{3:020}.json").write_text(f"{action}\n")


def change(log: Path, old: str, new: str) -> None:
    file = log / f"{0:020}.json"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_a_damaged_part_is_named(results: Results) -> None:
    file = Path(results.storage.root, "tracks", f"{part_name(1)}.parquet")
    damage_footer(file)
    with pytest.raises(ValueError, match=f"(?s){file}: damaged .*; remove it"):
        committed(results.storage, [part_name(1)])
    file.write_bytes(b"junk")
    with pytest.raises(ValueError, match=f"{file}: damaged .*; remove it"):
        committed(results.storage, [part_name(1)])
    assert TableLog(results.storage, "tracks").version == -1


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "copies"
    folder.mkdir()
    monkeypatch.setattr(delta_log.tempfile, "tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


def test_no_copy_of_a_log_is_left(copies: Path, results: Results) -> None:
    log = committed(results.storage, [part_name(1)])
    assert [path.name[:11] for path in copies.iterdir()] == ["openvis-log"]
    del log
    assert not list(copies.iterdir())


@pytest.mark.parametrize("fault", ["500", "503", "reset", "cut"])
@pytest.mark.slow
def test_on_s3_every_version_is_committed_once(
    fault: str, bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit whose answer is lost is recognised, not taken for another writer's."""
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.3)
    s3._client.cache_clear()
    results = Results(Storage(f"{bucket}/labels"))
    parts = [part_name(1, number) for number in range(4)]
    for number, part in enumerate(parts):
        put_part(results, part, f"v{number}")
    proxy.share = {fault: 0.3}
    for number in range(1, 5):
        assert committed(results.storage, parts[:number]).version == number - 1
    assert proxy.spoiled
    proxy.share = {}
    table = DeltaTable(f"{bucket}/labels/tracks", storage_options=connection(bucket))
    assert (table.version(), len(table.file_uris())) == (3, 4)
    assert sorted(table.to_pyarrow_table()["video_id"].to_pylist()) == ["v0", "v1", "v2", "v3"]
