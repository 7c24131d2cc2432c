import errno
import logging
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipelines.archive import registration
from pipelines.archive.compaction import settle
from pipelines.archive.delta_log import FOLDER, TableLog
from pipelines.archive.registration import Registration, registering
from pipelines.archive.schemas import ORDER, SCHEMAS
from pipelines.archive.tables import Results, read_masks, read_tracks, read_videos
from pipelines.storage.files import Storage
from pipelines.storage.lease import LEASE, hold_lease
from pipelines.storage.outage import is_away
from tests.pipelines.archive.delta import read_table
from tests.pipelines.archive.labels import part_name, put_part
from tests.pipelines.storage.s3_server import Outage, Proxy
from tests.waiting import wait_until


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(Storage(str(tmp_path)))


def seen(results: Results) -> list[tuple[str, str]]:
    """What another program sees, which is the same in all tables."""
    rows = read_table(results.storage.root, "tracks").to_pylist()
    assert len(versions(results)) == 1
    assert len({frozenset(TableLog(results.storage, table).parts) for table in SCHEMAS}) == 1
    return sorted((each["video_id"], each["category"]) for each in rows)


def versions(results: Results) -> set[int]:
    return {TableLog(results.storage, table).version for table in SCHEMAS}


def test_new_parts_are_seen_but_for_videos_that_another_part_has(results: Results) -> None:
    with hold_lease(results.storage) as lease:
        each = Registration(results, lease)
        each.add()
        assert versions(results) == {-1}
        put_part(results, part_name(1), "a", "b", category="old")
        each.add()
        each.add()
        assert seen(results) == [("a", "old"), ("b", "old")]
        put_part(results, part_name(2), "b", "c", category="new")  # as --overwrite
        put_part(results, part_name(2, 1), "d", category="new")
        put_part(results, part_name(2, 2), "e", category="twice")
        put_part(results, part_name(2, 3), "e", category="twice")  # of a tracker actor that died meanwhile
        put_part(results, part_name(2, 4), "f", category="half")
        results.storage.remove(f"videos/{part_name(2, 4)}.parquet")
        each.add()
        assert seen(results) == [("a", "old"), ("b", "old"), ("d", "new")]
        assert versions(results) == {1}
        settle(results, lease)
        assert seen(results) == [("a", "old"), ("b", "new"), ("c", "new"), ("d", "new"), ("e", "twice")]
        settle(results, lease)
        assert versions(results) == {2}


def test_a_version_has_the_same_number_in_all_tables(results: Results) -> None:
    with hold_lease(results.storage) as lease:
        for number, name in enumerate("abc"):
            put_part(results, part_name(1, number), name)
            settle(results, lease)
    root = results.storage.root
    for version in range(3):
        for read in (read_videos, read_tracks, read_masks):
            assert sorted(set(read(root, version=version)["video_id"].to_pylist())) == list("abc"[: version + 1])
    assert read_tracks(root, version=2) == read_tracks(root)
    with pytest.raises(ValueError, match="has no version 3; the newest is 2"):
        read_videos(root, version=3)


def test_who_commits_first_is_seen_by_the_other(results: Results) -> None:
    """A run that lost its lease unnoticed may be committing still."""
    with hold_lease(results.storage) as lease:
        first, second = Registration(results, lease), Registration(Results(results.storage), lease)
        put_part(results, part_name(1), "a")
        for each in (first, second):
            each.add()
        put_part(results, part_name(1, 1), "b")
        first.add()
        put_part(results, part_name(2), "b", "c", category="new")  # second does not know yet that b is registered
        second.add()
        assert seen(results) == [("a", "star"), ("b", "star")]
        put_part(results, part_name(2, 1), "d")
        second.add()
        first.replace([part_name(1)], [part_name(1, 1), part_name(2, 1)])
        assert seen(results) == [("a", "star")]
        assert versions(results) == {3}


def test_a_run_that_lost_its_lease_commits_nothing(results: Results) -> None:
    with hold_lease(results.storage) as lease:
        put_part(results, part_name(1), "a")
        Registration(results, lease).add()
        put_part(results, part_name(1, 1), "b")
        with results.storage.write(LEASE) as file:
            file.write(b'{"id": "another", "host": "elsewhere", "pid": 1, "released": false}')
        lease._renew()
        for act in (lambda each: each.add(), lambda each: each.replace([])):
            with pytest.raises(RuntimeError, match="another run took over"):
                act(Registration(results, lease))
    assert seen(results) == [("a", "star")]


@pytest.mark.parametrize("table", ORDER)
def test_what_other_programs_do_to_a_log_is_undone_and_told(
    table: str, results: Results, caplog: pytest.LogCaptureFixture
) -> None:
    with hold_lease(results.storage) as lease:
        for number, name in enumerate("abc"):
            put_part(results, part_name(1, number), name)
        settle(results, lease)
        settle(results, lease)
        assert not caplog.records
        other = DeltaTable(Path(results.storage.root, table))
        other.optimize.compact()
        other.vacuum(dry_run=False)  # commits, too
        settle(results, lease)
        assert seen(results) == [("a", "star"), ("b", "star"), ("c", "star")]
        assert len(caplog.records) == 1
        other.update_incremental()
        other.delete()
        settle(results, lease)
        assert seen(results) == [("a", "star"), ("b", "star"), ("c", "star")]
        (newest,) = versions(results)
        for spared in SCHEMAS.keys() - {table}:
            for version in range(newest + 1):
                rows = read_table(results.storage.root, spared, version)
                assert set(rows["video_id"].to_pylist()) == set("abc")


def test_a_part_that_somebody_deleted_is_told(results: Results, caplog: pytest.LogCaptureFixture) -> None:
    with hold_lease(results.storage) as lease:
        put_part(results, part_name(1), "a")
        put_part(results, part_name(1, 1), "b")
        settle(results, lease)
        results.storage.remove(f"videos/{part_name(1)}.parquet")
        settle(results, lease)
    assert seen(results) == [("b", "star")]
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{results.storage.root}: the logs listed 1 files that are not parts, such as {part_name(1)}; "
        "they list the parts again"
    )


def test_a_table_without_its_log_gets_another(results: Results) -> None:
    with hold_lease(results.storage) as lease:
        for number, name in enumerate("abc"):
            put_part(results, part_name(1, number), name)
            settle(results, lease)
        results.storage.remove_folder(f"tracks/{FOLDER}")
        settle(results, lease)
    assert seen(results) == [("a", "star"), ("b", "star"), ("c", "star")]


def test_parts_are_registered_while_a_run_goes_on(
    results: Results, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "EVERY_S", 0.01)
    caplog.set_level(logging.WARNING)
    with hold_lease(results.storage) as lease:
        with registering(results, lease):
            put_part(results, part_name(1), "a")
            wait_until(lambda: versions(results) == {0})
            with monkeypatch.context() as patch:

                def fail(self: Storage, *arguments: object) -> None:
                    raise OSError(errno.EHOSTUNREACH, "no answer", "s3://bucket")

                patch.setattr(Storage, "replace_tagged", fail)
                put_part(results, part_name(1, 1), "b")
                wait_until(lambda: bool(caplog.records))
            wait_until(lambda: versions(results) == {1})
        put_part(results, part_name(1, 2), "c")
    assert seen(results) == [("a", "star"), ("b", "star")]
    assert "not registered yet: " in caplog.text


def test_on_s3_a_part_costs_a_request_for_each_file_and_one_for_each_table(bucket: str, proxy: Proxy) -> None:
    results = Results(Storage(f"{bucket}/labels"))
    with hold_lease(results.storage) as lease:
        each = Registration(results, lease)
        put_part(results, part_name(1), "a")
        each.add()
        put_part(results, part_name(1, 1), "b")
        proxy.requests.clear()
        each.add()
    assert proxy.count("PUT", f"{FOLDER}/{1:020}.json") == proxy.count("PUT", FOLDER) == 3
    reads = [path for method, path in proxy.requests if method == "GET" and path.endswith(".parquet")]
    assert len(reads) == 4  # each file's end; that of videos also for the ids
    assert proxy.count("GET", FOLDER) == 0


def test_a_registration_that_s3_does_not_answer_is_done_again(outage: Outage) -> None:
    results = Results(Storage("s3://outage/labels"))
    with hold_lease(results.storage) as lease:
        put_part(results, part_name(1), "a")
        each = Registration(results, lease)
        each.add()
        put_part(results, part_name(1, 1), "b")
        outage.begin()
        with pytest.raises(OSError, match="cannot be reached") as caught:
            each.add()
        assert is_away(caught.value)
        outage.resume()
        each.add()
        assert versions(results) == {1}
        assert TableLog(results.storage, "videos").parts == {part_name(1), part_name(1, 1)}
