from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from pipelines.part_map import counting_parts, map_parts
from pipelines.results import Results
from pipelines.storage import Storage
from tests.pipelines.labels import part_name, put_part


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_parts_are_told_with_the_videos_that_count_in_them(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    assert counting_parts(results) == {}
    put_part(results, part_name(1), "a", "b")
    put_part(results, part_name(2), "c")
    put_part(results, part_name(3), "a", "d")
    put_part(results, part_name(4), "c")
    assert counting_parts(results) == {part_name(1): ["b"], part_name(3): None, part_name(4): None}


def work(part: str, video_ids: pa.Array | None) -> dict[str, Any]:
    if part == "gone":
        raise FileNotFoundError(2, "no such file", "tracks/gone.parquet")
    if part == "damaged":
        raise ValueError("tracks/damaged.parquet: damaged")
    return {"videos": None if video_ids is None else video_ids.to_pylist()}


def test_a_part_that_fails_does_not_stop_the_others() -> None:
    rows = list(map_parts({"all": None, "gone": None, "some": ["a", "b"], "damaged": ["c"]}, work))
    assert {row["part"]: row["error"] or row["videos"] for row in rows} == {
        "all": None,
        "gone": "was merged with others meanwhile; run again",
        "some": ["a", "b"],
        "damaged": "tracks/damaged.parquet: damaged",
    }
    assert list(map_parts({}, work)) == []


def test_an_unforeseen_error_ends_it() -> None:
    def broken(part: str, video_ids: pa.Array | None) -> dict[str, Any]:
        raise TypeError("a mistake in the code")

    with pytest.raises(Exception, match="a mistake in the code"):
        list(map_parts({"a": None}, broken))
