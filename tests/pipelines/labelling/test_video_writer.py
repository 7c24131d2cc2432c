from dataclasses import replace
from itertools import count, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from openvis_model.instances import Instances
from openvis_model.options import AssociationConfig, VideoTrackerConfig
from openvis_model.rle import encode
from openvis_model.video_tracker import VideoTracker
from openvis_model.vocabulary import VocabularyEmbedding
from pipelines.archive.parts import PartWriter
from pipelines.archive.schemas import SCHEMAS, Fingerprints
from pipelines.archive.tables import Results
from pipelines.labelling.instance_bytes import encode_instances
from pipelines.labelling.rows import LabelledRow
from pipelines.labelling.track_sink import TrackerActor
from pipelines.labelling.video_writer import Tracked, VideoWriter, VideoWriters, mask_rows
from pipelines.storage.files import Storage
from pipelines.video.plan import VideoInfo

CONFIG = VideoTrackerConfig(association=AssociationConfig(kind="hungarian"), max_gap=1)
VOCABULARY = VocabularyEmbedding(("star", "disc"), torch.eye(2), 1.0986123)  # probabilities 3/4 and 1/4
PRINTS = Fingerprints(model_fingerprint="m", vocabulary_fingerprint="v", config_fingerprint="c", top=5)
INFO = VideoInfo(frames=6, fps=4.0, width=8, height=6, duration_s=1.5, codec="h264")


def instances(*columns: int) -> Instances:
    """Squares of 2 × 2 pixels that start in these columns of a 6 × 8 frame, each with a different token."""
    masks = torch.zeros(len(columns), 6, 8, dtype=torch.bool)
    for mask, column in zip(masks, columns, strict=True):
        mask[1:3, column : column + 2] = True
    index = torch.tensor([column // 4 for column in columns], dtype=torch.long)
    tokens = torch.eye(2)[index]
    colours = torch.full((len(columns), 3), 7.0)
    return Instances(torch.full((len(columns),), 0.8), tokens, tokens, index, colours, encode(masks))


def batches(video_id: str = "v") -> list[LabelledRow]:
    """Six frames in two segments of two and one batches; the second object comes in frame 2."""
    seen = [instances(0), instances(1), instances(0, 4), instances(4, 0), instances(5), instances(4, 1)]
    head = LabelledRow(video_id=video_id, uri=f"/{video_id}.mp4", segments=2, expected_frames=6, info=INFO)
    places = [(0, 0, False), (0, 1, True), (1, 0, True)]
    return [
        replace(
            head,
            segment=segment,
            batch=batch,
            last_batch=last,
            frame=np.array([2 * i, 2 * i + 1]),
            time_s=np.array([i / 2, i / 2 + 0.25]),
            instances=encode_instances(seen[2 * i : 2 * i + 2]),
            model_s=0.5,
        )
        for i, (segment, batch, last) in enumerate(places)
    ]


def table(*rows: LabelledRow) -> pa.Table:
    return pa.concat_tables(row.to_table() for row in rows)


RUNS = count(1)


class OneVideo(VideoWriter):
    """Commits the video once it is finished."""

    to: VideoWriters

    def add(self, batch: LabelledRow) -> str | None:
        if status := super().add(batch):
            self.to.take(self, status)
            self.to.commit()
        return status


def writers(output: Path, part_s: float = 0.0) -> VideoWriters:
    parts = PartWriter(Storage(str(output)), f"{next(RUNS):06d}-00000000", part_bytes=1e9, part_s=part_s)
    return VideoWriters(VideoTracker(CONFIG, VOCABULARY), parts, PRINTS)


def new_writer(output: Path) -> VideoWriter:
    writer = OneVideo("v", "/v.mp4", VideoTracker(CONFIG, VOCABULARY), PRINTS)
    writer.to = writers(output)
    return writer


def tables(output: Path) -> dict[str, list[dict[str, Any]]]:
    results = Results(Storage(str(output)))
    return {table: results.read(table).to_pylist() for table in ("videos", "tracks", "masks")}


def without_times(video: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in video.items() if name != "tracker_s"}


def test_batches_in_any_order_give_the_same_tables(tmp_path: Path) -> None:
    labelled = []
    for i, order in enumerate(permutations(batches())):
        writer = new_writer(tmp_path / str(i))
        assert [writer.add(batch) for batch in order] == [None, None, "ok"]
        labelled.append(tables(tmp_path / str(i)))
    for other in labelled:
        assert other["tracks"] == labelled[0]["tracks"]
        assert other["masks"] == labelled[0]["masks"]
        assert without_times(other["videos"][0]) == without_times(labelled[0]["videos"][0])

    video = labelled[0]["videos"][0]
    assert (video["status"], video["error"], video["frames"], video["tracks"]) == ("ok", None, 6, 2)
    assert (video["model_s"], video["model_fingerprint"], video["width"]) == (1.5, "m", 8)
    tracks = {track["track_id"]: track for track in labelled[0]["tracks"]}
    assert (tracks[0]["category"], tracks[0]["first_frame"], tracks[0]["last_frame"], tracks[0]["frames"]) == (
        "star",
        0,
        5,
        5,
    )
    assert (tracks[1]["category"], tracks[1]["first_frame"], tracks[1]["frames"]) == ("disc", 2, 4)
    assert tracks[0]["colour"] == pytest.approx([7, 7, 7])
    assert tracks[0]["score"] == pytest.approx(0.8 * 0.75)
    seen = [(mask["track_id"], mask["frame"], mask["x"]) for mask in labelled[0]["masks"]]
    assert seen == [(0, 0, 0), (0, 1, 1), (0, 2, 0), (1, 2, 4), (0, 3, 0), (1, 3, 4), (1, 4, 5), (0, 5, 1), (1, 5, 4)]


def test_batches_that_arrive_early_wait_on_disk(tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    first, second, third = batches()
    writer.add(third)
    writer.add(second)
    waiting = {name for name in writer.rows.folder.iterdir() if name.name.startswith("batch-")}
    assert {name.name for name in waiting} == {"batch-0-1", "batch-1-0"} == {p.name for p in writer.waiting.values()}
    assert writer.add(first) == "ok"
    assert not writer.rows.folder.exists()


def test_nothing_is_there_before_the_last_batch(tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    for batch in batches()[:2]:
        assert writer.add(batch) is None
    assert not list(tmp_path.iterdir())


def test_an_error_makes_the_video_fail_and_leaves_its_tracks_out(tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    first, second, _ = batches()
    writer.add(first)
    assert writer.add(replace(second, error="model failed")) == "failed"
    labelled = tables(tmp_path)
    assert (labelled["videos"][0]["status"], labelled["videos"][0]["error"]) == ("failed", "model failed")
    assert labelled["tracks"] == labelled["masks"] == []


def test_a_failure_never_replaces_labels(tmp_path: Path) -> None:
    """A disk that is offline while its videos are labelled again must not cost their earlier labels."""
    first = new_writer(tmp_path)
    assert [first.add(batch) for batch in batches()][-1] == "ok"
    before = tables(tmp_path)
    again = new_writer(tmp_path)
    assert again.add(LabelledRow(video_id="v", uri="/v.mp4", error="file not labelled")) == "failed"
    assert tables(tmp_path) == before


def test_what_is_unfinished_leaves_nothing_behind(tmp_path: Path) -> None:
    actor = TrackerActor(writers(tmp_path))
    actor.add(table(batches()[2]))
    (unfinished,) = actor.writers.values()
    assert isinstance(unfinished, VideoWriter)
    folder = unfinished.rows.folder
    assert folder.exists()
    actor.close()
    actor.add(table(batches()[2]))  # was in flight
    assert not actor.writers
    assert not folder.exists()
    assert not list(tmp_path.iterdir())


def test_an_actor_that_drains_finishes_what_is_begun_and_begins_nothing(tmp_path: Path) -> None:
    actor = TrackerActor(writers(tmp_path))
    first, *others = batches("a")
    actor.add(table(first))
    assert actor.drain() == 1
    actor.add(table(*batches("b"), *others))
    assert actor.drain() == 0
    assert [video["video_id"] for video in tables(tmp_path)["videos"]] == ["a"]


def test_finished_videos_count_once_they_are_committed(tmp_path: Path) -> None:
    actor = TrackerActor(writers(tmp_path, part_s=600.0))
    for name in ("a", "b"):
        actor.add(table(*batches(name)))
    actor.commit(due=True)
    assert (actor.progress()[1].ok, tables(tmp_path)["videos"]) == (2, [])
    actor.commit()
    assert [video["video_id"] for video in tables(tmp_path)["videos"]] == ["a", "b"]
    assert len(list((tmp_path / "masks").iterdir())) == 1
    actor.add(table(*batches("c")))
    actor.close()
    actor.commit()
    assert len(tables(tmp_path)["videos"]) == 2


def test_missing_frames_are_reported(tmp_path: Path) -> None:
    writer = new_writer(tmp_path)
    cut = [replace(batch, expected_frames=9, info=replace(INFO, missing_frames=30)) for batch in batches()]
    assert [writer.add(batch) for batch in cut][-1] == "ok"
    error = tables(tmp_path)["videos"][0]["error"]
    assert "about 30 frames that its header promises are missing; 3 of 9 frames could not be decoded" in error


def test_a_video_without_frames_fails(tmp_path: Path) -> None:
    empty = LabelledRow(video_id="v", uri="/v.mp4", expected_frames=4, info=INFO)
    assert new_writer(tmp_path).add(empty) == "failed"
    assert tables(tmp_path)["videos"][0]["error"] == "4 of 4 frames could not be decoded"


def test_a_failure_in_tracking_stops_no_other_video(tmp_path: Path) -> None:
    actor = TrackerActor(writers(tmp_path))
    broken = [
        replace(batch, video_id="b", frame=np.array([0, 0])) for batch in batches("b")
    ]  # frames must come in order
    for pair in zip(batches("a"), broken, strict=True):
        actor.add(table(*pair))
    status = {video["video_id"]: video for video in tables(tmp_path)["videos"]}
    assert status["a"]["status"] == "ok"
    assert status["b"]["status"] == "failed"
    assert "tracking failed" in status["b"]["error"]
    assert "frames must come in order" in status["b"]["error"]
    _, progress = actor.progress()
    assert progress.ok == progress.failed == 1
    assert {mask["video_id"] for mask in tables(tmp_path)["masks"]} == {"a"}


def test_rows_of_masks_by_hand() -> None:
    """Sorted by frame, then by track; an instance without a track has none."""
    first, second = instances(0, 4), instances(4)
    frames = [Tracked(3, 0.5, first, np.array([7, 2])), Tracked(5, 1.0, second, np.array([-1]))]
    rows = mask_rows("v", [*frames, Tracked(6, 1.5, second, np.array([2]))])
    assert rows.schema == SCHEMAS["masks"]
    assert rows.drop_columns(["rle", "score"]).to_pylist() == [
        {"video_id": "v", "track_id": track, "frame": frame, "time_s": time_s, "area": int(masks.areas[i])}
        | dict(zip(("x", "y", "width", "height"), masks.boxes[i].tolist(), strict=True))
        for track, frame, time_s, masks, i in (
            (2, 3, 0.5, first.masks, 1),
            (7, 3, 0.5, first.masks, 0),
            (2, 6, 1.5, second.masks, 0),
        )
    ]
    assert rows["score"].to_pylist() == pytest.approx(
        [float(each.objectness[i]) for each, i in ((first, 1), (first, 0), (second, 0))]
    )
    assert rows["rle"][1].as_py() == {"size": list(first.masks.size), "counts": first.masks.counts[0].decode()}


def test_frames_without_tracks_give_no_rows() -> None:
    for frames in ([], [Tracked(0, 0.0, instances(), np.array([], dtype=int))]):
        assert mask_rows("v", frames).equals(SCHEMAS["masks"].empty_table())
