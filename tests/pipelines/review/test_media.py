from pathlib import Path

import pytest

from pipelines.review.media import is_playable, local_path


def test_files_that_browsers_may_play() -> None:
    assert is_playable("s3://bucket/a.MP4")
    assert not any(map(is_playable, ("a.avi", "a.ts", "frames/", "page.html", "labels/videos/a.parquet")))


@pytest.mark.parametrize("name", ["a.mp4", "über 100%.mp4", "a#b?c.mp4"])
def test_uris_of_local_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert local_path(str(path)) == str(path)
    assert local_path(path.as_uri()) == str(path)
