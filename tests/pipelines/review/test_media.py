from pipelines.review.media import is_playable


def test_files_that_browsers_may_play() -> None:
    assert is_playable("s3://bucket/a.MP4")
    assert not any(map(is_playable, ("a.avi", "a.ts", "frames/", "page.html", "labels/videos/a.parquet")))
