from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipelines.archive.reviews import Reviews
from pipelines.archive.tables import Results
from pipelines.review.catalogue import Catalogue, Filter
from pipelines.review.decided import Decided
from pipelines.storage.files import Storage
from tests.pipelines.archive.decisions import decide
from tests.pipelines.archive.exports import SEEN, put
from tests.pipelines.archive.labels import part_name


@pytest.fixture
def catalogue(tmp_path: Any) -> Catalogue:
    """Video `a` was labelled twice; the second time counts."""
    results = Results(Storage(str(tmp_path / "labels")))
    put(results, part_name(1), {"a": {7: ("moon", 1.0, (0,))}, "b-2": SEEN["b-2"]})
    put(results, part_name(2), {"a": SEEN["a"], "c": SEEN["c"]})
    return Catalogue(results, Decided(Reviews(results.storage)))


def found(catalogue: Catalogue, **wanted: Any) -> list[tuple[str, int]]:
    rows = catalogue.rows(catalogue.find(Filter(**wanted)).tolist())
    return [(row["video_id"], row["track_id"]) for row in rows]


def test_only_what_counts_is_found(catalogue: Catalogue) -> None:
    assert catalogue.size == 4
    assert found(catalogue) == [("a", 0), ("b-2", 0), ("a", 1), ("b-2", 2)]
    assert catalogue.summary() == {"videos": 3, "failed": 0, "decided": 0, "stale": 0, "duplicates": 0, "tracks": 4}
    assert [row["track_id"] for row in catalogue.tracks_of("a")] == [0, 1]
    assert catalogue.tracks_of("nobody") == []
    video = catalogue.video("a")
    assert video is not None
    assert video["part"] == part_name(2)
    assert catalogue.video("nobody") is None


@pytest.mark.parametrize(
    ("wanted", "tracks"),
    [
        ({"category": "star"}, [("a", 0), ("b-2", 0)]),
        ({"category": "star' or '1'='1"}, []),
        ({"video": "a"}, [("a", 0), ("a", 1)]),
        ({"video": "nobody"}, []),
        ({"name": "B-"}, [("b-2", 0), ("b-2", 2)]),
        ({"name": "%"}, []),
        ({"min_score": 0.45}, [("a", 0), ("b-2", 0)]),
        ({"max_score": 0.45}, [("a", 1), ("b-2", 2)]),
        ({"order": "score"}, [("b-2", 2), ("a", 1), ("b-2", 0), ("a", 0)]),
        ({"order": "-uncertain"}, [("b-2", 0), ("a", 1), ("a", 0), ("b-2", 2)]),
        ({"decision": "decided"}, []),
        ({"decision": "undecided", "min_score": 0.5}, [("a", 0), ("b-2", 0)]),
    ],
)
def test_filters_and_orders(catalogue: Catalogue, wanted: dict[str, Any], tracks: list[Any]) -> None:
    assert found(catalogue, **wanted) == tracks


def test_decisions_are_filtered_by(catalogue: Catalogue) -> None:
    stale = replace(decide(0, "reject", "star"), video_id="b-2", model_fingerprint="of another model")
    other = replace(decide(5, "accept", "star"), video_id="not labelled")
    catalogue.decide(
        catalogue.decided.add([decide(0, "rename", "comet"), decide(1, "accept", "ring & disc"), stale, other])
    )
    assert found(catalogue, decision="decided") == [("a", 0), ("a", 1)]
    assert found(catalogue, decision="rename") == [("a", 0)]
    assert found(catalogue, decision="reject") == []
    assert found(catalogue, decision="stale") == [("b-2", 0)]
    assert found(catalogue, decision="undecided") == [("b-2", 0), ("b-2", 2)]
    assert found(catalogue, category="comet") == [("a", 0)]
    assert found(catalogue, category="star") == [("b-2", 0)]
    counts = {row["category"]: (row["tracks"], row["decided"]) for row in catalogue.categories()}
    assert counts == {"comet": (1, 1), "ring & disc": (1, 1), "star": (1, 0), "moon": (1, 0)}
    assert catalogue.summary()["decided"] == 2
    assert catalogue.summary()["stale"] == 1
    catalogue.decide(catalogue.decided.add([decide(0, "clear", at=1)]))
    assert found(catalogue, category="star") == [("a", 0), ("b-2", 0)]
    again = Catalogue(catalogue.results, Decided(Reviews(catalogue.results.storage)))
    assert found(again, decision="decided") == [("a", 1)]


def test_rows_come_in_the_order_that_is_asked_for(catalogue: Catalogue) -> None:
    rows = catalogue.rows([3, 0, 99])
    assert [row["row"] for row in rows] == [3, 0]
    assert catalogue.find(Filter()).dtype == np.int32


def test_unknown_orders_are_named() -> None:
    with pytest.raises(ValueError, match="^order: unknown value 'size'; choose from score"):
        Filter(order="size")  # type: ignore[arg-type]
