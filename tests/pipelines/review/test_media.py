import http.client
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.archive.tables import Results
from pipelines.review import media
from pipelines.review.config import ReviewConfig
from pipelines.review.media import is_playable
from pipelines.review.session import Review
from pipelines.storage import objects
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name
from tests.pipelines.review.archives import put_video
from tests.pipelines.review.serving import served


def test_files_that_browsers_may_play() -> None:
    assert is_playable("s3://bucket/a.MP4")
    assert not any(map(is_playable, ("a.avi", "a.ts", "frames/", "page.html", "labels/videos/a.parquet")))


def test_storage_that_fails_ends_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page must not take an answer that says so for bytes of the video."""
    content = bytes(range(256)) * 32

    def read_range(uri: str, start: int, stop: int, *, etag: str) -> bytes:
        if start >= 4096:
            raise OSError("the storage is away")
        return content[start:stop]

    monkeypatch.setattr(media, "_CHUNK", 1024)
    monkeypatch.setattr(objects, "head", lambda uri: SimpleNamespace(size=len(content), etag="e"))
    monkeypatch.setattr(objects, "cloud_of", lambda uri: SimpleNamespace(read_range=read_range))
    results = Results(Storage(str(tmp_path / "labels")))
    put_video(results, part_name(1), "far", "s3://bucket/far.mp4", {1: ("star", 0.9, (0,))}, [0.0, 0.5])
    with served(Review(ReviewConfig(labels=results.storage.root))) as client:
        with pytest.raises(http.client.IncompleteRead) as broken:
            client.get("api/media", id="far")
        assert broken.value.partial == content[:4096]
        part = client.get("api/media", id="far", headers={"Range": "bytes=0-99"})
        assert (part.status, part.body) == (206, content[:100])
        assert part.headers["X-Content-Type-Options"] == "nosniff"
        assert part.headers["Cache-Control"] == "no-store"
