from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pipelines.archive.search import Hit
from pipelines.overlays.pictures import pictures
from pipelines.video.download_cache import DownloadCache
from pipelines.video.plan import MachineError
from tests.pipelines.video.clips import number, write_clip


def hit(uri: Path, frame: int) -> Hit:
    dense = np.zeros((96, 128), np.uint8)
    dense[90:, 120:] = 1  # off the bits of the number
    encoded = coco_mask.encode(np.asfortranarray(dense))
    return Hit(
        similarity=0.5,
        video_id=uri.stem,
        uri=str(uri),
        track_id=0,
        category="star",
        score=0.5,
        objectness=0.5,
        first_frame=0,
        last_frame=9,
        frame=frame,
        time_s=frame / 24,
        mask={"size": encoded["size"], "counts": encoded["counts"].decode()},
    )


def test_a_picture_is_of_the_hits_frame_with_its_mask(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=10)
    tiles, failures = pictures([hit(tmp_path / "a.mp4", 7), hit(tmp_path / "absent.mp4", 0)])
    assert [(tile.video, tile.time_s) for tile in tiles] == [("a.mp4", 7 / 24)]
    assert number(tiles[0].image) == 7
    assert list(failures) == [str(tmp_path / "absent.mp4")]


def test_a_machine_that_cannot_read_one_video_shows_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "a.mp4", frames=10)
    version = DownloadCache.version

    def fail(cache: DownloadCache, uri: str) -> str:
        if uri.startswith("s3:"):
            raise MachineError("s3://bucket/b.mp4 cannot be reached")
        return version(cache, uri)

    monkeypatch.setattr(DownloadCache, "version", fail)
    away = replace(hit(tmp_path / "b.mp4", 0), uri="s3://bucket/b.mp4")
    tiles, failures = pictures([away, replace(hit(tmp_path / "a.mp4", 7), uri=(tmp_path / "a.mp4").as_uri())])
    assert [tile.video for tile in tiles] == ["a.mp4"]
    assert failures == {"s3://bucket/b.mp4": "s3://bucket/b.mp4 cannot be reached"}
