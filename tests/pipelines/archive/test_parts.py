import errno
import pickle
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.archive import parts
from pipelines.archive.parts import PartWriter, Rows
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from pipelines.storage.lease import LEASE, hold_lease
from tests.pipelines.archive.labels import part_name, row


def video(name: str, frames: int = 1) -> Rows:
    rows = Rows()
    rows.add("masks", [row("masks", video_id=name, frame=frame) for frame in range(frames)])
    rows.add("videos", [row("videos", video_id=name, status="ok")])
    return rows


def writer(folder: Path, part_bytes: float = 1e9, part_s: float = 1e9) -> PartWriter:
    return pickle.loads(pickle.dumps(PartWriter(Storage(str(folder)), "000001-0000000a", part_bytes, part_s)))


def test_rows_of_many_batches_share_row_groups(tmp_path: Path) -> None:
    rows = Rows()
    for frame in range(30):
        rows.add("masks", [row("masks", track_id=track, frame=frame) for track in range(500)])
    rows.put(Storage(str(tmp_path)), part_name(1))
    file = pq.ParquetFile(tmp_path / "masks" / f"{part_name(1)}.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [8500, 6500]
    assert file.read(columns=["frame"])["frame"].to_pylist() == [frame for frame in range(30) for _ in range(500)]
    assert not rows.folder.exists()


def test_adding_nothing_keeps_nothing() -> None:
    """Most frames end no track: what is kept of them would grow with the video."""
    rows = Rows()
    for _ in range(100):
        rows.add("tracks", [])
    assert not rows._spools["tracks"]._held
    rows.discard()
    assert not rows.folder.exists()


def test_videos_are_gathered_into_parts_of_a_size(tmp_path: Path) -> None:
    together = writer(tmp_path / "together")
    for i in range(5):
        each = video(f"v{i}", frames=20_000)
        together.add(each, "ok")
        assert not each.folder.exists()
    size = together._open["ok"].bytes()
    assert Results(together.storage).parts() == []
    together.commit()
    together.commit()
    assert len(Results(together.storage).parts()) == 1
    masks = Results(together.storage).read("masks")
    assert masks["video_id"].to_pylist() == [f"v{i}" for i in range(5) for _ in range(20_000)]

    rolled = writer(tmp_path / "rolled", part_bytes=size / 2)
    for i in range(5):
        rolled.add(video(f"v{i}", frames=20_000), "ok")
        rolled.commit_if_due()
    rolled.commit()
    assert [name.startswith("000001-0000000a-") for name in Results(rolled.storage).parts()] == [True, True]
    assert Results(rolled.storage).read("masks").num_rows == 100_000


def test_no_video_waits_for_others_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(parts.time, "monotonic", lambda: now)
    each, results = writer(tmp_path, part_s=60.0), Results(Storage(str(tmp_path)))
    each.add(video("a"), "ok")
    now = 59.0
    each.add(video("b"), "ok")
    each.commit_if_due()
    assert results.parts() == []
    now = 60.0
    each.commit_if_due()
    assert results.read("videos")["video_id"].to_pylist() == ["a", "b"]
    each.add(video("c"), "ok")
    now = 119.0
    each.commit_if_due()
    assert len(results.parts()) == 1
    each.discard()
    each.commit()
    assert len(results.parts()) == 1


def test_a_part_that_cannot_be_put_in_place_is_kept(tmp_path: Path) -> None:
    each, results = writer(tmp_path / "out"), Results(Storage(str(tmp_path / "out")))
    each.add(video("a"), "ok")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tracks").touch()  # no folder
    with pytest.raises(OSError, match="tracks"):
        each.commit()
    assert results.parts() == []
    each.add(video("b"), "ok")
    with pytest.raises(OSError, match="tracks"):
        each.commit_if_due()  # although nothing is due, but that
    (tmp_path / "out" / "tracks").unlink()
    each.commit_if_due()
    assert sorted(results.read("videos")["video_id"].to_pylist()) == ["a", "b"]
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 2


def test_half_a_video_is_never_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    each, results = writer(tmp_path), Results(Storage(str(tmp_path)))
    each.add(video("a"), "ok")
    add_file = Rows.add_file

    def fail(self: Rows, table: str, file: Path) -> None:
        if table == "videos":
            raise OSError(28, "No space left on device")
        add_file(self, table, file)

    b = video("b")
    monkeypatch.setattr(Rows, "add_file", fail)
    with pytest.raises(OSError, match="No space left"):
        each.add(b, "ok")
    monkeypatch.undo()
    each.commit()
    assert results.parts() == []
    each.add(video("c"), "ok")
    each.commit()
    assert results.read("masks")["video_id"].to_pylist() == ["c"]


def test_failed_videos_have_parts_of_their_own(tmp_path: Path) -> None:
    """When they are tried again, settling removes a part and rewrites none."""
    each, results = writer(tmp_path), Results(Storage(str(tmp_path)))
    each.add(video("a"), "ok")
    each.add(video("b"), "failed")
    each.add(video("c"), "ok")
    each.commit()
    assert sorted(ids.to_pylist() for ids in results.counting().values()) == [["a", "c"], ["b"]]


def test_a_run_whose_lease_another_one_took_adds_nothing(tmp_path: Path) -> None:
    """Its driver may not know yet."""
    storage = Storage(str(tmp_path))
    with hold_lease(storage) as lease:
        parts = PartWriter(storage, "000001-0000000a", 1e9, 0.0, lease.id)
        parts.add(video("before"), "ok")
        parts.commit()
        with storage.write(LEASE) as file:
            file.write(b'{"id": "another", "host": "elsewhere", "pid": 1, "released": false}')
        parts.add(video("after"), "ok")
        for commit in (parts.commit, parts.commit_if_due):
            with pytest.raises(RuntimeError, match="another run took over"):
                commit()
        parts.discard()
    assert Results(storage).read("videos")["video_id"].to_pylist() == ["before"]


def test_parts_wait_while_the_output_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = writer(tmp_path, part_s=0.0)
    waiting.add(video("v"), "ok")

    def fail(number: int) -> None:
        def put(self: Storage, *arguments: object) -> None:
            raise OSError(number, "no answer", "s3://bucket/labels")

        monkeypatch.setattr(Storage, "put", put)

    fail(errno.EHOSTUNREACH)
    waiting.commit_if_due()
    with pytest.raises(OSError, match="no answer"):
        waiting.commit()
    fail(errno.ENOSPC)
    with pytest.raises(OSError, match="no answer"):
        waiting.commit_if_due()
    monkeypatch.undo()
    waiting.commit_if_due()
    assert Results(waiting.storage).read("videos")["video_id"].to_pylist() == ["v"]
