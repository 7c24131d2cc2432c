from typing import Any

import pytest

from pipelines.archive.cluster_map import map_on_cluster

pytestmark = pytest.mark.usefixtures("cluster")


def test_every_row_is_worked_on_and_an_error_is_one_line() -> None:
    rows = [{"part": str(number)} for number in range(5)]

    def task(row: dict[str, Any]) -> dict[str, Any]:
        if row["part"] == "broken":
            raise TypeError("a mistake in the code")
        return row | {"done": True}

    assert sorted(map_on_cluster(task, rows), key=lambda row: row["part"]) == [row | {"done": True} for row in rows]
    with pytest.raises(RuntimeError, match="^TypeError: a mistake in the code$"):
        list(map_on_cluster(task, [{"part": "broken"}]))
