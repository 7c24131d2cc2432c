import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.archive.config import DuplicatesConfig
from pipelines.archive.duplicates import FILE, SCHEMA, find_duplicates, read_duplicates
from pipelines.archive.parts import Rows
from pipelines.archive.tables import Results
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.files import Storage
from tests.pipelines.archive.archives import label_archive
from tests.pipelines.archive.damage import damage_footer
from tests.pipelines.archive.labels import part_name, row
from tests.pipelines.video.clips import H264, write_clip

VECTORS = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0].astype(np.float32)
"""Embeddings that have nothing in common."""


def put_video(
    results: Results, number: int, tracks: Sequence[tuple[np.ndarray, int]], model: str = "m", part: int | None = None
) -> None:
    """Puts a video with tracks of some embedding and number of frames in place, by default in its own part."""
    rows, video_id = Rows(), f"v{number}"
    for track_id, (vector, frames) in enumerate(tracks):
        embedding = (vector / np.linalg.norm(vector)).tolist()
        rows.add("tracks", [row("tracks", video_id=video_id, track_id=track_id, frames=frames, embedding=embedding)])
    rows.add("videos", [row("videos", video_id=video_id, status="ok", model_fingerprint=model)])
    rows.put(results.storage, part_name(1, number if part is None else part))


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(Storage(str(tmp_path / "labels")))


def found(results: Results, **options: Any) -> list[tuple[Any, ...]]:
    find_duplicates(DuplicatesConfig(labels=results.storage.root, **options))
    return [tuple(each.values()) for each in read_duplicates(results.storage).to_pylist()]


def test_videos_are_alike_if_most_of_their_frames_are(results: Results) -> None:
    a, b, c, d = VECTORS[:4]
    put_video(results, 0, [(a, 10), (b, 10), (c, 20)])
    put_video(results, 1, [(b, 8), (a, 12), (d, 4)])
    put_video(results, 2, [(a + 0.1 * d, 10), (d, 90)])
    put_video(results, 3, [])
    rows = found(results)
    assert [each[:5] for each in rows if each[0] == "video"] == [("video", "v0", None, "v1", None)]
    video = rows[0]
    assert video[5:] == (pytest.approx(1), pytest.approx(2 * (10 + 8) / (40 + 24)))
    tracks = {each[1:5]: each[5] for each in rows if each[0] == "track"}
    cosine = pytest.approx(1 / 1.01**0.5)
    expected = {("v0", 0, "v1", 1): pytest.approx(1), ("v0", 1, "v1", 0): pytest.approx(1)}
    expected |= {("v0", 0, "v2", 0): cosine, ("v1", 1, "v2", 0): cosine, ("v1", 2, "v2", 1): pytest.approx(1)}
    assert tracks == expected
    assert len(found(results, min_share=0.57)) == len(expected)
    assert ("v0", 0, "v2", 0) not in {each[1:5] for each in found(results, threshold=0.999)}


def test_the_table_does_not_depend_on_which_video_was_labelled_first(results: Results) -> None:
    a, b = VECTORS[:2]
    again = Results(Storage(f"{results.storage.root}_again"))
    for number, tracks in enumerate(([(a, 10), (b, 12)], [(b, 8), (a, 10)])):
        put_video(results, number, tracks)
        put_video(again, number, tracks, part=1 - number)
    expected = found(results)
    assert {each[1:5:2] for each in expected} == {("v0", "v1")}
    assert found(again) == expected


def test_a_track_has_one_counterpart(results: Results) -> None:
    a, b = VECTORS[:2]
    put_video(results, 0, [(a, 10), (a + 0.01 * b, 10), (a + 0.02 * b, 10)])
    put_video(results, 1, [(a, 10), (b, 60)])
    video, *tracks = found(results, min_share=0.1)
    assert video[5:] == (pytest.approx(1), pytest.approx(20 / 100))
    assert len(tracks) == 3


def test_models_are_not_compared_and_stale_rows_not_read(results: Results) -> None:
    put_video(results, 0, [(VECTORS[0], 10)], model="one")
    put_video(results, 1, [(VECTORS[0], 10)], model="another")
    assert found(results) == []
    rows = Rows()
    rows.add("videos", [row("videos", video_id="v1", status="ok", model_fingerprint="one")])
    vector = VECTORS[0].tolist()
    rows.add("tracks", [row("tracks", video_id="v1", track_id=7, frames=5, embedding=vector)])
    rows.put(results.storage, part_name(2))
    assert [each[:5] for each in found(results)] == [
        ("video", "v0", None, "v1", None),
        ("track", "v0", 0, "v1", 7),
    ]


def test_the_table_is_written_where_it_is_wanted(results: Results, tmp_path: Path) -> None:
    put_video(results, 0, [(VECTORS[0], 10)])
    assert read_duplicates(results.storage).num_rows == 0
    output = str(tmp_path / "elsewhere.parquet")
    summary = find_duplicates(DuplicatesConfig(labels=results.storage.root, output=output))
    assert (summary.videos, summary.tracks, summary.video_pairs, summary.track_pairs) == (1, 1, 0, 0)
    assert pq.read_table(output).schema.equals(SCHEMA)
    assert not results.storage.exists(FILE)
    shutil.copy(output, Path(results.storage.root, FILE))
    damage_footer(Path(results.storage.root, FILE))
    with pytest.raises(ValueError, match=f"(?s)^labels: .*/{FILE}: damaged .*; run jobs.duplicates again"):
        read_duplicates(results.storage)
    with results.storage.write(FILE) as file:
        file.write(b"none")
    with pytest.raises(ValueError, match=f"{FILE}: damaged .*; run jobs.duplicates again"):
        read_duplicates(results.storage)
    with pytest.raises(ValueError, match=r"output: .*/x.csv must end with .parquet"):
        find_duplicates(DuplicatesConfig(labels=results.storage.root, output=f"{tmp_path}/x.csv"))


@pytest.mark.nightly
def test_a_video_that_was_encoded_again_is_found(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(2):
        frames = render(SceneConfig(frames=24), "novel", 0, number).frames
        path = tmp_path / f"videos/{number}.mp4"
        write_clip(path, frames=24, fps=8, options=H264, draw=lambda i, height, width, frames=frames: frames[i])
    with av.open(str(tmp_path / "videos/0.mp4")) as source, av.open(str(tmp_path / "videos/a.webm"), "w") as copy:
        stream = copy.add_stream("libvpx-vp9", rate=8)
        stream.width, stream.height = (source.streams.video[0].width, source.streams.video[0].height)
        stream.pix_fmt, stream.bit_rate = "yuv420p", 60_000
        for frame in source.decode(video=0):
            frame.pts = None
            copy.mux(stream.encode(frame.reformat(format="yuv420p")))
        copy.mux(stream.encode())
    (tmp_path / "names.txt").write_text("purple checkered comb\norange plain heart\nyellow striped moon\n")
    label_archive(tmp_path, tmp_path / "labels", "names.txt")
    results = Results(Storage(str(tmp_path / "labels")))
    (video,) = [each for each in found(results) if each[0] == "video"]
    assert [name.partition("-")[0] for name in (video[1], video[3])] == ["0", "a"]
    assert video[5] > 0.99
    assert video[6] > 0.8
