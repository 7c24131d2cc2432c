import errno
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.archive.parts import Rows
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results, read_videos
from pipelines.storage.files import Storage
from tests.pipelines.archive.damage import damage_footer
from tests.pipelines.archive.labels import part_name, put_part, row
from tests.pipelines.storage.broken_disk import break_reads
from tests.pipelines.storage.put import Put
from tests.pipelines.storage.s3_server import Proxy


def test_a_part_of_an_earlier_version_has_no_shots(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a")
    put_part(results, part_name(1, 1), "b")
    file = tmp_path / "videos" / f"{part_name(1)}.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["shots"]), file)
    assert results.read("videos").schema == SCHEMAS["videos"]
    assert results.read("videos", video_id="a")["shots"].to_pylist() == [None]
    (rows,) = results.scan("videos", ("video_id", "shots"), video_ids=["a"])
    assert rows.column_names == ["video_id", "shots"]
    pq.write_table(pq.read_table(file).drop_columns(["uri"]), file)
    with pytest.raises(ValueError, match="has no column uri"):
        results.read("videos")


def test_damaged_pages_name_the_file(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a")
    file = tmp_path / "videos" / f"{part_name(1)}.parquet"
    data = bytearray(file.read_bytes())
    data[4:200] = bytes(196)
    file.write_bytes(data)
    with pytest.raises(ValueError, match=rf"(?s)videos/{part_name(1)}\.parquet: damaged .*; remove it"):
        results.read("videos")


def test_a_damaged_footer_names_the_file(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a")
    damage_footer(tmp_path / "videos" / f"{part_name(1)}.parquet")
    with pytest.raises(ValueError, match=rf"(?s)videos/{part_name(1)}\.parquet: damaged .*; remove it"):
        results.read("videos")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_file_that_the_disk_does_not_give_is_not_damaged(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine that has just removed it leaves a stale file here."""
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a")
    with monkeypatch.context() as patch:
        break_reads(patch, number)
        with pytest.raises(OSError, match=f"videos/{part_name(1)}.parquet") as error:
            list(results.row_groups("videos", part_name(1)))
    assert isinstance(error.value, FileNotFoundError) == (number == errno.ESTALE)


def test_only_row_groups_of_a_video_are_read(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    rows = Rows()
    names = ["a", "b", "c"]
    for name in names:
        rows.add("masks", [row("masks", video_id=name, frame=frame) for frame in range(9000)])
        rows.add("videos", [row("videos", video_id=name, status="ok")])
    rows.put(results.storage, part_name(1))
    wanted = pa.array(["b"])
    read = list(results.row_groups("masks", part_name(1), wanted))
    assert [group.num_rows for group in read] == [9000]
    assert results.read("masks", video_id="b").num_rows == 9000


@pytest.fixture
def large_part(bucket: str, proxy: Proxy) -> Results:
    """An archive on S3 with a part of more than 128 MB, whose videos have ten tracks each."""
    results = Results(Storage(f"{bucket}/large"))
    rng = np.random.default_rng(0)
    rows, tracks = Rows(), 9 * 8192
    for start in range(0, tracks, 8192):
        number = np.arange(start, start + 8192)
        values = pa.array(rng.standard_normal(8192 * 512).astype(np.float32))
        columns = {
            "video_id": pa.array([f"v{track // 10:05}" for track in number]),
            "track_id": pa.array((number % 10).astype(np.int32)),
            "score": pa.array(rng.random(8192).astype(np.float32)),
            "embedding": pa.ListArray.from_arrays(pa.array(np.arange(8193, dtype=np.int32) * 512), values),
        }
        schema = SCHEMAS["tracks"]
        missing = {name: pa.nulls(8192, schema.field(name).type) for name in schema.names if name not in columns}
        rows.add_table("tracks", pa.table({**columns, **missing}).select(schema.names).cast(schema))
    rows.add("videos", [row("videos", video_id=f"v{video:05}", status="ok") for video in range(tracks // 10)])
    rows.put(results.storage, part_name(1))
    return results


@pytest.mark.nightly
def test_of_a_large_part_on_s3_only_what_is_asked_for_is_read(large_part: Results, proxy: Proxy) -> None:
    size = large_part.sizes(["tracks"])[part_name(1)]
    assert size > 128e6
    large_part.counting()
    proxy.requests.clear()
    proxy.sent = 0
    (rows,) = large_part.scan("tracks", ("video_id", "score"), video_ids=["v01000"])
    assert rows.num_rows == 10
    reads = [path for method, path in proxy.requests if method == "GET" and path.endswith(".parquet")]
    assert len(reads) <= 2  # the footer with the size, and the columns
    assert proxy.sent < 500_000
    proxy.requests.clear()
    proxy.sent = 0
    assert sum(group.num_rows for group in large_part.row_groups("tracks", part_name(1))) == 9 * 8192
    assert proxy.count("GET") <= size / 2**23 + 2
    assert proxy.sent <= size + 2**18

    groups = large_part.row_groups("tracks", part_name(1), columns=("video_id", "embedding"))
    next(groups)
    large_part.storage.remove(f"tracks/{part_name(1)}.parquet")
    with pytest.raises(FileNotFoundError, match="there is no such object"):
        list(groups)


def test_a_damaged_part_on_s3_is_named(bucket: str, put: Put) -> None:
    for table in SCHEMAS:
        put(f"{bucket}/labels/{table}/{part_name(1)}.parquet", b"junk")
    with pytest.raises(ValueError, match=f"{bucket}/labels/videos/{part_name(1)}.parquet: damaged .*; remove it"):
        read_videos(f"{bucket}/labels")
