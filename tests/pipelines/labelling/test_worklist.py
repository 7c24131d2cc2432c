from pathlib import Path
from typing import Any

import pytest

from pipelines.archive import buckets
from pipelines.archive.compaction import settle
from pipelines.archive.schemas import Fingerprints
from pipelines.archive.tables import Results
from pipelines.labelling import worklist
from pipelines.labelling.worklist import Worklist, undone
from pipelines.storage.files import Storage
from pipelines.storage.lease import hold_lease
from pipelines.video.sources import Video
from tests.pipelines.archive.labels import part_name, put_part

PRINTS = Fingerprints(model_fingerprint="m", vocabulary_fingerprint="v", config_fingerprint="c", top=5)
VIDEOS = [Video(video_id=name, uri=f"s3://b/{name}.mp4", version=f"e{name}") for name in "abcdefg"]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worklist, "BATCH", 3)


def put(results: Results, part: str, name: str, **values: Any) -> None:
    put_part(results, part, name, **({"uri": f"s3://b/{name}.mp4", **vars(PRINTS)} | values))


def todo(results: Results, *, retry_failed: bool = False, overwrite: bool = False) -> list[str]:
    videos = undone(Worklist(VIDEOS), results, PRINTS, retry_failed=retry_failed, overwrite=overwrite)
    return [video.video_id for video in videos]


def test_videos_come_back_as_they_were() -> None:
    listed = Worklist(iter(VIDEOS))
    assert len(listed) == 7
    assert [batch.num_rows for batch in listed.batches()] == [3, 3, 1]
    assert list(listed.chunks(4)) == [VIDEOS[:4], VIDEOS[4:]]
    assert list(listed.chunks(10)) == [VIDEOS]
    assert not Worklist([])


def test_done_videos_are_left_out(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    assert todo(results) == list("abcdefg")
    put(results, part_name(1), "b")
    put(results, part_name(1, 1), "e", status="failed")
    put(results, part_name(1, 2), "other")
    assert todo(results) == list("acdfg")
    assert todo(results, retry_failed=True) == list("acdefg")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_fingerprint": "other"}, "output: .* has videos labelled with another model; choose another output"),
        ({"config_fingerprint": "x", "vocabulary_fingerprint": "y"}, "another vocabulary and config"),
        ({"uri": "s3://b/z.mp4"}, "has s3://b/z.mp4 under the id 'f', which is now that of s3://b/f.mp4; choose"),
    ],
)
def test_other_labels_are_refused_or_replaced(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    results = Results(Storage(str(tmp_path)))
    put(results, part_name(1), "b")
    put(results, part_name(1, 1), "f", **values)
    with pytest.raises(ValueError, match=message):
        todo(results)
    assert todo(results, overwrite=True) == list("acdefg")


def test_among_many_every_video_is_compared_by_its_own_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In buckets of several batches; the order is that of the list."""
    monkeypatch.setattr(buckets, "BATCH", 50)
    videos = [Video(video_id=f"v{i * 7 % 400:03}", uri=f"s3://b/v{i * 7 % 400:03}.mp4") for i in range(400)]
    results = Results(Storage(str(tmp_path)))
    done = {f"v{i:03}" for i in range(0, 400, 9)}
    for number, video_id in enumerate(sorted(done)):
        put(results, part_name(1, number), video_id)
    missing = undone(Worklist(videos), results, PRINTS, retry_failed=False, overwrite=False)
    assert list(missing) == [video for video in videos if video.video_id not in done]
    for number, video_id in enumerate(("v009", "v018")):
        put(results, part_name(2, number), video_id, uri=f"s3://b/other-{video_id}.mp4")
    with hold_lease(results.storage) as lease:
        settle(results, lease)
    with pytest.raises(ValueError, match="has s3://b/other-v018.mp4 under the id 'v018'"):
        next(undone(Worklist(videos), results, PRINTS, retry_failed=False, overwrite=False))
    again = undone(Worklist(videos), results, PRINTS, retry_failed=False, overwrite=True)
    assert list(again) == [video for video in videos if video.video_id not in done - {"v009", "v018"}]
