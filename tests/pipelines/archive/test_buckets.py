import pyarrow as pa
import pytest

from pipelines.archive import buckets
from pipelines.archive.buckets import BUCKETS, Buckets

SCHEMA = pa.schema([("video_id", pa.string()), ("row", pa.int64())])


def table(*rows: tuple[str, int]) -> pa.Table:
    return pa.Table.from_pylist([{"video_id": name, "row": row} for name, row in rows], SCHEMA)


@pytest.mark.parametrize("batch", [1, 7, 2**16])
def test_every_row_is_in_the_bucket_of_its_id(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "BATCH", batch)
    rows = [(f"v{i % 300}", i) for i in range(1000)]
    parted = Buckets([table(*rows[:1]), table(), table(*rows[1:500]), table(*rows[500:])], SCHEMA)
    same_ids = Buckets([table(("v7", -1))], SCHEMA)
    found = [[(row["video_id"], row["row"]) for row in parted.read(i).to_pylist()] for i in range(BUCKETS)]
    assert sorted(row for bucket in found for row in bucket) == sorted(rows)
    assert all([row for _, row in bucket] == sorted(row for _, row in bucket) for bucket in found)
    names = [{name for name, _ in bucket} for bucket in found]
    assert sum(map(len, names)) == 300
    assert max(map(len, names)) < 30
    assert [i for i in range(BUCKETS) if "v7" in names[i]] == [i for i in range(BUCKETS) if len(same_ids.read(i))]


def test_nothing_has_empty_buckets() -> None:
    for tables in ([], [table()]):
        parted = Buckets(tables, SCHEMA)
        assert [parted.read(i) for i in range(BUCKETS)] == [SCHEMA.empty_table()] * BUCKETS
