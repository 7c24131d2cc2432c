import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.archive import part_map
from pipelines.archive.compaction import compact
from pipelines.archive.config import CompactConfig
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name, put_part


@pytest.fixture(autouse=True, params=["here", "cluster"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs in this process and on a cluster."""
    if request.param == "cluster":
        request.getfixturevalue("cluster")
        monkeypatch.setattr(part_map, "SMALL_BYTES", 0)
    place: str = request.param
    return place


def map_parts(results: Results, work: part_map.Work, video_ids: pa.Array | None = None) -> Iterator[dict[str, Any]]:
    return part_map.map_parts(results, work, ("videos",), video_ids)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    results = Results(Storage(str(tmp_path)))
    put_part(results, part_name(1), "a", "b")
    put_part(results, part_name(2), "c")
    put_part(results, part_name(3), "a", "d")
    put_part(results, part_name(4), "c")
    return results


def ids(part: str, video_ids: pa.Array | None) -> dict[str, Any]:
    return {"ids": None if video_ids is None else video_ids.to_pylist()}


def test_the_work_is_told_which_videos_of_a_part_are_wanted(results: Results) -> None:
    found = {row["part"]: row["ids"] for row in map_parts(results, ids)}
    assert found == {part_name(1): ["b"], part_name(3): None, part_name(4): None}
    some = {row["part"]: row["ids"] for row in map_parts(results, ids, pa.array(["d", "c", "x"]))}
    assert some == {part_name(3): ["d"], part_name(4): None}
    assert list(map_parts(results, ids, pa.array([], pa.string()))) == []
    assert list(map_parts(Results(Storage(f"{results.storage.root}/none")), ids)) == []


def test_a_part_that_fails_does_not_stop_the_others(results: Results) -> None:
    def work(part: str, video_ids: pa.Array | None) -> dict[str, Any]:
        if part == part_name(3):
            raise ValueError("tracks/3.parquet: damaged")
        return {"ids": "read"}

    found = {row["part"]: row["error"] or row["ids"] for row in map_parts(results, work)}
    assert found == {part_name(1): "read", part_name(3): "tracks/3.parquet: damaged", part_name(4): "read"}


def test_parts_that_are_merged_meanwhile_are_found_again(results: Results) -> None:
    """Each video is worked on once, in the part that it is in by then."""

    def work(part: str, video_ids: pa.Array | None) -> dict[str, Any]:
        if part == part_name(1):
            compact(CompactConfig(labels=results.storage.root))
        rows = pa.concat_tables(results.row_groups("videos", part, video_ids))
        return {"ids": rows["video_id"].to_pylist()}

    rows = list(map_parts(results, work))
    assert not any(row["error"] for row in rows)
    assert sorted(video_id for row in rows for video_id in row["ids"]) == ["a", "b", "c", "d"]


def test_a_folder_that_only_the_driver_sees_is_named(results: Results, place: str) -> None:
    if place == "here":
        return  # there is only one machine

    class Elsewhere(Results):
        """Where it is sent to, another folder is at the place."""

        def __setstate__(self, state: dict[str, Any]) -> None:
            super().__setstate__({"storage": Storage(f"{state['storage'].root}/elsewhere")})

    seen = Elsewhere(results.storage)

    def work(part: str, video_ids: pa.Array | None) -> dict[str, Any]:
        return ids(part, next(seen.row_groups("videos", part, video_ids))["video_id"])

    (row,) = map_parts(seen, work, pa.array(["b"]))
    assert row["error"].endswith(
        "is another folder on some machine of the cluster; give one that all machines see, or one in the cloud"
    )


def test_a_part_that_comes_back_is_not_in_another_folder(results: Results, place: str) -> None:
    if place == "cluster":
        return  # there it may well be
    path = Path(results.storage.root, "videos", f"{part_name(4)}.parquet")
    content = path.read_bytes()

    class Returning(Results):
        """Has all parts once it is asked again."""

        def parts(self) -> list[str]:
            parts = super().parts()
            path.write_bytes(content)
            return parts

    def work(part: str, video_ids: pa.Array | None) -> dict[str, Any]:
        path.unlink()
        raise FileNotFoundError

    (row,) = map_parts(Returning(results.storage), work, pa.array(["c"]))
    assert row["error"].endswith("lost this part for a moment; run again")


def test_an_unforeseen_error_ends_it_in_a_line(results: Results) -> None:
    def broken(part: str, video_ids: pa.Array | None) -> dict[str, Any]:
        raise TypeError("a mistake in the code")

    with pytest.raises(RuntimeError, match="^TypeError: a mistake in the code$"):
        list(map_parts(results, broken))


def test_a_small_archive_needs_no_ray(results: Results) -> None:
    code = (
        "import sys\n"
        "from pipelines.archive.part_map import map_parts\n"
        "from pipelines.archive.tables import Results\n"
        "from pipelines.storage.files import Storage\n"
        "rows = list(map_parts(Results(Storage(sys.argv[1])), lambda part, ids: {}, ('videos',)))\n"
        "sys.exit(len(rows) != 3 or 'ray' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, results.storage.root], check=False).returncode == 0
