from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.archive import spool
from pipelines.archive.spool import Spool, read_spool

SCHEMA = pa.schema([("video_id", pa.string()), ("rles", pa.list_(pa.struct([("counts", pa.string())])))])


def rows(video_id: str, *numbers: int) -> pa.Table:
    return pa.Table.from_pylist([{"video_id": video_id, "rles": [{"counts": str(n)}] * n} for n in numbers], SCHEMA)


def counts(table: pa.Table) -> list[tuple[str, int]]:
    return [(row["video_id"], len(row["rles"])) for row in table.to_pylist()]


def test_rows_leave_sorted_by_video_and_else_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "ROW_GROUP", 4)
    each = Spool(tmp_path / "spool", SCHEMA)
    for added in (rows("b", 3, 1), rows("é", 5), rows("a", 2, 9, 7), rows("b", 0), rows("c"), rows("a", 8, 6, 4, 1)):
        each.add(added)
    each.close()
    each.close()
    each.write_sorted(tmp_path / "sorted")
    file = pq.ParquetFile(tmp_path / "sorted")
    assert counts(file.read()) == [
        *(("a", n) for n in (2, 9, 7, 8, 6, 4, 1)),
        *(("b", n) for n in (3, 1, 0)),
        ("é", 5),
    ]
    ranges = [file.metadata.row_group(group).column(0).statistics for group in range(file.num_row_groups)]
    assert [(each.min, each.max) for each in ranges] == [("a", "a"), ("b", "é")]
    assert file.metadata.row_group(0).sorting_columns == (pq.SortingColumn(0),)


def test_rows_of_a_spool_come_back_as_they_were_added(tmp_path: Path) -> None:
    each = Spool(tmp_path / "spool", SCHEMA)
    for added in (rows("b", 3, 1), rows("a", 2)):
        each.add(added)
    each.close()
    back = pa.concat_tables(read_spool(tmp_path / "spool"))
    (tmp_path / "spool").unlink()
    assert counts(back) == [("b", 3), ("b", 1), ("a", 2)]
    assert back.schema == SCHEMA


def test_no_rows_are_an_empty_file(tmp_path: Path) -> None:
    each = Spool(tmp_path / "spool", SCHEMA)
    each.close()
    each.write_sorted(tmp_path / "sorted")
    assert pq.read_table(tmp_path / "sorted") == SCHEMA.empty_table()
    assert pq.ParquetFile(tmp_path / "sorted").num_row_groups == 0
    assert list(read_spool(tmp_path / "spool")) == []


def test_a_full_disk_is_told_at_every_call_and_loses_nothing_unseen() -> None:
    each = Spool(Path("/dev/full"), SCHEMA)
    each.add(rows("a", 1))
    for _ in range(2):
        with pytest.raises(OSError, match="No space left on device"):
            each.close()
