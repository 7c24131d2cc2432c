from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from pipelines.archive import compaction
from pipelines.archive.compaction import CompactSummary, compact, settle
from pipelines.archive.config import CompactConfig
from pipelines.archive.reviews import Reviews
from pipelines.archive.schemas import ORDER, SCHEMAS
from pipelines.archive.tables import Results, read_tracks
from pipelines.storage.files import Storage
from pipelines.storage.lease import LEASE, hold_lease
from tests.pipelines.archive.decisions import decide
from tests.pipelines.archive.delta import connection, read_table
from tests.pipelines.archive.labels import part_name, put_part


@pytest.fixture(params=["folder", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Gives a new output each time."""
    root = str(tmp_path) if request.param == "folder" else request.getfixturevalue("bucket")
    return lambda name: f"{root}/{name}"


KEYS = {"videos": ["video_id"], "tracks": ["video_id", "track_id"], "masks": ["video_id", "track_id", "frame"]}


def tables(output: str) -> dict[str, list[dict[str, Any]]]:
    results = Results(Storage(output))
    return {table: in_order(table, results.read(table)) for table in KEYS}


def tables_of_others(output: str, version: int | None = None) -> dict[str, list[dict[str, Any]]]:
    return {table: in_order(table, read_table(output, table, version)) for table in KEYS}


def in_order(table: str, rows: pa.Table) -> list[dict[str, Any]]:
    return list(rows.sort_by([(key, "ascending") for key in KEYS[table]]).to_pylist())


def logs(output: str) -> list[tuple[str, None, dict[str, str]]]:
    return [(f"{output}/{table}", None, connection(output)) for table in ORDER]


def files(output: str) -> set[str]:
    return {path for table in SCHEMAS for path in Storage(output).list(table)}


def settled(output: str) -> None:
    with hold_lease(Storage(output)) as lease:
        settle(Results(Storage(output)), lease, keep_h=0)


def compacted(output: str, **options: Any) -> CompactSummary:
    return compact(CompactConfig(labels=output, keep_h=0, **options))


class Crash(BaseException):
    """The process dies."""


@contextmanager
def crash_before(operation: int | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Lets everything that changes the tables break off before the nth such operation; yields those that were done."""
    done: list[str] = []

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def act(self: Storage, *arguments: Any) -> Any:
            if arguments[0] == LEASE:
                return method(self, *arguments)
            if len(done) == operation:
                raise Crash
            done.append(method.__name__)
            return method(self, *arguments)

        return act

    with monkeypatch.context() as patch:
        for name in ("put", "remove", "write", "replace_tagged"):
            patch.setattr(Storage, name, counted(getattr(Storage, name)))
        yield done


def next_run(output: str) -> None:
    """Labels d, and again c and b, which failed; leaves the rest."""
    settled(output)
    results = Results(Storage(output))
    there = {each["video_id"]: each for each in results.read("tracks").to_pylist()}
    todo = [name for name in ("b", "c", "d") if there.get(name, {"category": "old"})["category"] != "new"]
    if todo:
        put_part(results, f"{results.next_run()}-{0:012x}", *todo, category="new")
    settled(output)


@pytest.mark.slow
@pytest.mark.parametrize("output", ["folder", pytest.param("s3", marks=pytest.mark.nightly)], indirect=True)
def test_a_crash_between_any_two_writes_is_never_seen(
    output: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(name: str) -> str:
        root = output(name)
        results = Results(Storage(root))
        put_part(results, part_name(1), "a", "c", category="old")
        put_part(results, part_name(1, 1), "b", status="failed", error="cut off", tracks=0)
        settled(root)
        return root

    root = begin("whole")
    before = tables(root)
    assert tables_of_others(root) == before
    with crash_before(None, monkeypatch) as operations:
        next_run(root)
    after = tables(root)
    assert [each["category"] for each in after["tracks"]] == ["old", "new", "new", "new"]
    assert tables_of_others(root) == after
    assert len(files(root)) == 6  # the new part, and what a is merged into
    assert len(operations) > 15

    for n in range(len(operations)):
        root = begin(f"crash-{n}")
        with crash_before(n, monkeypatch), pytest.raises(Crash):
            next_run(root)
        found = tables(root)
        names = [each["video_id"] for each in found["videos"]]
        assert names in (["a", "b", "c"], ["a", "b", "c", "d"])
        for table in SCHEMAS:  # each video is as it was or as it becomes, in all tables
            rows = {name: [row for row in found[table] if row["video_id"] == name] for name in names}
            for name, its in rows.items():
                old, new = ([row for row in each[table] if row["video_id"] == name] for each in (before, after))
                assert its == (new if len(names) == 4 else old), (n, table, name)
        others, versions = tables_of_others(root), [DeltaTable(*log).version() for log in logs(root)]
        assert all(others[table] in (before[table], after[table]) for table in SCHEMAS)
        assert versions == sorted(versions, reverse=True)  # masks, tracks, videos
        assert tables_of_others(root, versions[-1]) in (before, after)  # what `videos` shows is in all tables
        next_run(root)
        assert tables(root) == tables_of_others(root) == after
        assert len({DeltaTable(*log).version() for log in logs(root)}) == 1
        assert len(files(root)) <= 6


def test_what_counts_does_not_change_when_the_rest_is_removed(output: Callable[[str], str]) -> None:
    root = output("labels")
    results = Results(Storage(root))
    put_part(results, part_name(1), "a", "b", "c")
    put_part(results, part_name(2), "b", category="new")
    put_part(results, part_name(3), "c", status="failed", tracks=0)
    put_part(results, part_name(4), "d", status="failed", tracks=0)
    put_part(results, part_name(5), "e")
    results.storage.remove(f"videos/{part_name(5)}.parquet")
    before = tables(root)
    settled(root)
    assert tables(root) == before
    assert sum(videos.num_rows for videos in results.listed(results.parts())) == 4  # each video once
    names = {path.partition("/")[2] for path in files(root)}
    assert {f"{part_name(2)}.parquet", f"{part_name(4)}.parquet"} < names
    assert len(names) == 3
    left = files(root)
    settled(root)
    assert files(root) == left


def test_small_parts_become_large_ones(output: Callable[[str], str]) -> None:
    root = output("labels")
    results = Results(Storage(root))
    for i in range(9):
        put_part(results, part_name(1, i), f"v{i}")
    before, size = tables(root), sum(size for table in SCHEMAS for _, size in results.storage.sizes(table))
    summary = compacted(root, part_mb=size / 3 / 1e6)
    assert (summary.parts_before, summary.parts) == (9, 3)
    assert tables(root) == before
    assert summary.bytes == sum(size for table in SCHEMAS for _, size in results.storage.sizes(table)) < size
    summary = compacted(root)
    assert (summary.parts_before, summary.parts) == (3, 1)
    assert tables(root) == tables_of_others(root) == before
    assert compacted(root).parts == 1


def test_replaced_parts_stay_for_readers_that_have_begun(
    output: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = output("labels")
    results = Results(Storage(root))
    put_part(results, part_name(1), "a", "b", category="old")
    compact(CompactConfig(labels=root))
    put_part(results, part_name(2), "b", category="new")
    before = tables_of_others(root)
    assert compact(CompactConfig(labels=root, part_mb=1e-6)).parts == 2
    put_part(results, part_name(3), "c")
    left = files(root)
    assert compact(CompactConfig(labels=root)).parts == 1
    assert left < files(root)
    assert tables_of_others(root, 0) == before != tables_of_others(root) == tables(root)
    assert read_tracks(root, version=0)["category"].to_pylist() == ["old", "old"]
    assert [each["category"] for each in tables(root)["tracks"]] == ["old", "new", "star"]

    now = compaction.time.time()
    monkeypatch.setattr(compaction.time, "time", lambda: now + 167 * 3600)
    compact(CompactConfig(labels=root))
    assert left < files(root)
    monkeypatch.setattr(compaction.time, "time", lambda: now + 169 * 3600)
    compact(CompactConfig(labels=root))
    assert len(files(root)) == 3
    assert tables_of_others(root) == tables(root)
    with pytest.raises(ValueError, match=f"version: files of version 0 of {root}/tracks were deleted"):
        read_tracks(root, version=0)


def test_what_cannot_be_compacted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.storage.lease.RENEW_S", 0.5)
    with pytest.raises(ValueError, match="labels: .*absent has no labels; give the output of a labelling run"):
        compact(CompactConfig(labels=str(tmp_path / "absent")))
    with pytest.raises(ValueError, match="labels: .* has no labels; give the output of a labelling run"):
        compact(CompactConfig(labels=str(tmp_path)))
    assert not list(tmp_path.iterdir())
    put_part(Results(Storage(str(tmp_path))), part_name(1), "a")
    with hold_lease(Storage(str(tmp_path))), pytest.raises(ValueError, match="is being written by another run"):
        compact(CompactConfig(labels=str(tmp_path)))


def test_an_output_whose_parts_are_registered_is_settled_without_reading_them(
    output: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = output("labels")
    put_part(Results(Storage(root)), part_name(1), "a", "b")
    put_part(Results(Storage(root)), part_name(1, 1), "b", "c")
    settled(root)
    before = tables(root)

    def read(*_: Any, **__: Any) -> Iterator[pa.Table]:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(Results, "row_groups", read)
        settled(root)
    put_part(Results(Storage(root)), part_name(2), "a", category="new")
    with monkeypatch.context() as patch:
        patch.setattr(Results, "row_groups", read)
        with pytest.raises(AssertionError):
            settled(root)
    settled(root)
    assert tables(root)["videos"] == before["videos"] == tables_of_others(root)["videos"]


def decisions_of_others(output: str) -> list[int]:
    return sorted(read_table(output, "reviews")["track_id"].to_pylist())


def test_decisions_are_kept_in_one_part(output: Callable[[str], str]) -> None:
    results = Results(Storage(output("labels")))
    put_part(results, part_name(1), "a")
    reviews = Reviews(results.storage)
    for count in (3, 5):
        while reviews.history().num_rows < count:
            reviews.add([decide(reviews.history().num_rows, "accept", "star")])
        before = reviews.history()
        compact(CompactConfig(labels=results.storage.root))
        assert len(reviews.parts()) == 1
        assert reviews.history() == before == Reviews(results.storage).history()
        assert decisions_of_others(results.storage.root) == list(range(count))
    assert len(list(reviews.names())) == 7  # kept for readers that have begun
    settled(results.storage.root)
    assert list(reviews.names()) == reviews.parts()
    assert tables(results.storage.root)["videos"]  # replaced decisions make no labels count again


@pytest.mark.parametrize("output", ["folder", pytest.param("s3", marks=pytest.mark.nightly)], indirect=True)
def test_no_crash_shows_a_decision_twice(output: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(name: str) -> str:
        root = output(name)
        put_part(Results(Storage(root)), part_name(1), "a")
        for number in range(2):
            Reviews(Storage(root)).add([decide(number, "accept", "star")])
            compacted(root)
        Reviews(Storage(root)).add([decide(2, "accept", "star")])
        return root

    whole = begin("whole")
    with crash_before(None, monkeypatch) as operations:
        compacted(whole)
    for broken in range(len(operations)):
        root = begin(str(broken))
        with crash_before(broken, monkeypatch), pytest.raises(Crash):
            compacted(root)
        assert decisions_of_others(root) in ([0, 1], [0, 1, 2])
        assert Reviews(Storage(root)).history().num_rows == 3
        compacted(root)
        assert decisions_of_others(root) == [0, 1, 2]
        assert len(list(Reviews(Storage(root)).names())) == 1
