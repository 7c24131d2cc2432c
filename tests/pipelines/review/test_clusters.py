from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.archive.duplicates import FILE, SCHEMA
from pipelines.archive.reviews import Reviews
from pipelines.archive.tables import Results
from pipelines.review.catalogue import Catalogue, Filter
from pipelines.review.decided import Decided
from pipelines.storage.files import Storage
from tests.pipelines.archive.exports import put
from tests.pipelines.archive.labels import part_name


def pair(one: tuple[str, int], other: tuple[str, int]) -> dict[str, Any]:
    ids = {"video_id": one[0], "track_id": one[1], "other_video_id": other[0], "other_track_id": other[1]}
    return ids | {"kind": "track", "similarity": 0.99, "share": None}


def test_tracks_that_pairs_connect_are_found_together(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    for number, video in enumerate("abcde"):
        put(results, part_name(1, number), {video: {0: ("star", 0.9, (0,)), 1: ("moon", 0.5, (0,))}})
    video = {"kind": "video", "video_id": "a", "other_video_id": "c", "similarity": 1.0, "share": 1.0}
    pairs = [video, pair(("a", 0), ("c", 0)), pair(("b", 1), ("d", 1)), pair(("c", 0), ("e", 0))]
    pairs.append(pair(("a", 1), ("gone", 7)))
    pq.write_table(pa.Table.from_pylist(pairs, SCHEMA), tmp_path / FILE)
    catalogue = Catalogue(results, Decided(Reviews(results.storage)))

    def found(**wanted: Any) -> list[tuple[str, int]]:
        rows = catalogue.rows(catalogue.find(Filter(**wanted)).tolist())
        return [(row["video_id"], row["track_id"]) for row in rows]

    together = [("a", 0), ("c", 0), ("e", 0), ("b", 1), ("d", 1)]
    assert found(duplicates=True, order="duplicates") == together
    assert found(duplicates=True, category="moon") == [("b", 1), ("d", 1)]
    assert found(order="duplicates")[:5] == together
    assert len(found(order="duplicates")) == 10
    assert catalogue.summary()["duplicates"] == 5
