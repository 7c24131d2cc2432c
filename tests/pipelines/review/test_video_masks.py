from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.archive.reviews import Reviews
from pipelines.archive.tables import Results
from pipelines.review.catalogue import Catalogue
from pipelines.review.decided import Decided, Row
from pipelines.review.search import AbsentError
from pipelines.review.video_masks import VideoMasks, with_followed
from pipelines.storage.files import Storage
from tests.pipelines.archive.exports import SEEN, put
from tests.pipelines.archive.labels import part_name


@pytest.fixture
def results(tmp_path: Path) -> Results:
    results = Results(Storage(str(tmp_path)))
    put(results, part_name(1), SEEN, model_fingerprint="m", config_fingerprint="c")
    return results


@pytest.fixture
def catalogue(results: Results) -> Catalogue:
    return Catalogue(results, Decided(Reviews(results.storage)))


def video_of(catalogue: Catalogue) -> Row:
    video = catalogue.video("a")
    assert video is not None
    return video


def places(masks: pa.Table) -> list[tuple[int, int]]:
    return list(zip(masks["frame"].to_pylist(), masks["track_id"].to_pylist(), strict=True))


def test_masks_are_those_of_one_video_in_order(results: Results, catalogue: Catalogue) -> None:
    masks = VideoMasks(results).of(video_of(catalogue), catalogue)
    assert set(masks["video_id"].to_pylist()) == {"a"}
    assert places(masks) == sorted(places(masks))
    stored = results.read("masks")["video_id"].to_pylist()
    assert masks.num_rows == stored.count("a") < len(stored)


def test_masks_of_what_was_followed_are_among_them(results: Results, catalogue: Catalogue) -> None:
    masks = VideoMasks(results).of(video_of(catalogue), catalogue)
    followed = masks.slice(0, 1).set_column(
        masks.schema.get_field_index("track_id"), "track_id", pa.array([99], pa.int32())
    )
    both = with_followed(masks, followed.append_column("prompt", pa.array(["point"])))
    assert both.schema.names == masks.schema.names
    assert places(both) == sorted([*places(masks), (places(masks)[0][0], 99)])
    assert with_followed(masks, None) is masks


def test_a_replaced_part_is_named_and_what_was_read_is_held(results: Results, catalogue: Catalogue) -> None:
    held, fresh = VideoMasks(results), VideoMasks(results)
    masks = held.of(video_of(catalogue), catalogue)
    for file in Path(results.storage.root, "masks").rglob("*.parquet"):
        file.unlink()
    assert held.of(video_of(catalogue), catalogue) is masks
    with pytest.raises(AbsentError, match="labels: they were rewritten meanwhile; load the page again"):
        fresh.of(video_of(catalogue), catalogue)
