"""A mixed archive in one run: every video is labelled as on its own, and nothing odd or bad harms another."""

import errno
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from openvis_model.options import SIZE_DIVISOR, AssociationConfig, VideoTrackerConfig
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.video_tracker import VideoTracker
from pipelines.archive.parts import PartWriter
from pipelines.archive.schemas import SCHEMAS, Fingerprints
from pipelines.archive.tables import Results
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.decode_operator import Decode, Plan
from pipelines.labelling.run import LabelSummary, label_videos
from pipelines.labelling.track_sink import TrackerActor
from pipelines.labelling.video_writer import VideoWriters
from pipelines.models import load_light_model, load_vocabulary
from pipelines.storage.files import Storage
from pipelines.video.download_cache import DownloadCache
from tests.pipelines.labelling.discs import BUILT_IN_MODEL, DiscModel
from tests.pipelines.video.clips import CLIPS, H264, VFR, listed_clip, write_clip, write_images
from tests.pipelines.video.hostile import HOSTILE, write_hostile
from tests.pipelines.video.odd import ODD, write_odd

pytestmark = pytest.mark.nightly

TRACKER = VideoTrackerConfig(association=AssociationConfig(min_similarity=-1.0), objectness_threshold=0.0, max_gap=2)

# Frames labelled, every fourth one.
WHOLE = (
    dict.fromkeys(CLIPS, 12)
    | {"one.mp4": 1, "images": 5, "good.mp4": 12}
    | {name: -(-len(numbers) // 4) for name, (_, numbers) in ODD.items()}
)
TIMES = ("model_s", "tracker_s")  # differ from run to run

Run = tuple[LabelSummary, Results, list[str]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = tmp_path_factory.mktemp("mixed") / "archive"
    archive.mkdir()
    for name in CLIPS:
        listed_clip(archive, name)
    write_images(archive / "images", 17)
    write_clip(archive / "good.mp4", options=H264)
    for name in ODD:
        write_odd(archive, name)
    for name in HOSTILE:
        write_hostile(archive, name)
    (archive / "unreadable").mkdir()
    (archive / "unreadable/hidden.mp4").touch()
    with open(os.fsencode(archive) + b"/caf\xe9.mp4", "w"):
        pass
    for name, other in (("one", "two"), ("two", "three"), ("three", "one")):
        (archive / f"ring/{name}").mkdir(parents=True)
        (archive / f"ring/{name}/{other}").symlink_to(archive / f"ring/{other}")
    (archive.parent / "names.txt").write_text("red striped star\n")
    return archive


@pytest.fixture(scope="module")
def config(archive: Path) -> LabelConfig:
    return LabelConfig(
        input=str(archive),
        output=str(archive.parent / "labels"),
        vocabulary=str(archive.parent / "names.txt"),
        tracker=TRACKER,
        objectness_floor=0.0,
        stride=4,
        trackers=2,
    )


@pytest.fixture(scope="module")
def run(config: LabelConfig, cluster: None, disc_model: None) -> Iterator[Run]:
    """The one run, what it wrote, and its warnings."""
    listdir = os.listdir

    def deny(path: str) -> list[str]:  # also if the user is root
        if str(path).endswith("unreadable"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listdir(path)

    warnings: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "listdir", deny)
        patch.setattr("pipelines.video.sources._log.warning", lambda text, *values: warnings.append(text % values))
        yield label_videos(config), Results(Storage(config.output)), warnings


@pytest.fixture(scope="module")
def rows(run: Run) -> dict[str, dict[str, Any]]:
    return {Path(row["uri"]).name: row for row in run[1].read("videos").to_pylist()}


def test_every_video_has_a_row_and_whole_ones_have_all_frames(rows: dict[str, dict[str, Any]]) -> None:
    assert rows.keys() == {*WHOLE, *HOSTILE}
    for name, frames in WHOLE.items():
        row = rows[name]
        found = (row["status"], row["frames"], row["expected_frames"], row["error"])
        assert found == ("ok", frames, frames, None), name
    sizes = {name: (row["height"], row["width"]) for name, row in rows.items()}
    assert (sizes["rotated_90.mp4"], sizes["odd.mp4"], sizes["two_tracks.mp4"]) == ((128, 96), (75, 101), (96, 128))


def test_bad_files_have_a_reason_or_what_is_left_of_them(run: Run, rows: dict[str, dict[str, Any]]) -> None:
    assert len(HOSTILE) >= 20
    for name, (_, error, frames) in HOSTILE.items():
        row = rows[name]
        assert error in (row["error"] or ""), name
        assert row["status"] == ("failed" if frames == 0 else "ok"), name
        assert (row["frames"] > 0) if frames is None else (row["frames"] == frames), name
    assert {row["video_id"]: row["error"] for row in rows.values() if row["status"] == "failed"} == run[0].failures


def test_what_cannot_be_a_row_is_a_warning(run: Run, archive: Path) -> None:
    assert run[2] == [
        f"input: {archive}/caf\\xe9.mp4 is left out: its name is not UTF-8; rename it",
        f"input: {archive}/unreadable is left out: Permission denied",
    ]


def test_frames_have_the_times_of_the_file(run: Run, rows: dict[str, dict[str, Any]]) -> None:
    masks = run[1].read("masks", video_id=rows["variable.mp4"]["video_id"])
    assert sorted(set(masks["time_s"].to_pylist())) == pytest.approx(
        [float(time - VFR[0]) for time in VFR[::4]], abs=2e-3
    )


def test_whole_videos_have_the_rows_that_they_have_alone(
    run: Run, rows: dict[str, dict[str, Any]], config: LabelConfig, tmp_path: Path
) -> None:
    for name in WHOLE:
        alone = label_alone(rows[name], config, tmp_path / name)
        for table in SCHEMAS:
            together = run[1].read(table, video_id=rows[name]["video_id"])
            assert comparable(alone.read(table)) == comparable(together), (name, table)
        assert alone.read("masks").num_rows == 2 * WHOLE[name]


def label_alone(row: dict[str, Any], config: LabelConfig, output: Path) -> Results:
    """Labels one video with the operators of the pipeline, one after the other in this process."""
    light, storage, cache = load_light_model(None), Storage(str(output)), DownloadCache()
    embedding = embed_vocabulary(load_vocabulary(config.vocabulary), light.text_encoder, reference=True)
    tracker = VideoTracker(config.tracker, embedding, light.rollout_tracker, top=config.top)
    fingerprints = Fingerprints(**{field.name: row[field.name] for field in fields(Fingerprints)})
    parts = PartWriter(storage, "000001-00000000", config.part_mb * 1e6, config.part_s)
    actor, model = TrackerActor(VideoWriters(tracker, parts, fingerprints)), DiscModel(BUILT_IN_MODEL, batch_size=8)
    plan = Plan(config.sampling(), config.segment_frames, cache, config.limits())
    decode = Decode(light.short_side, SIZE_DIVISOR, config.batch_size, cache, config.limits(), config.shots)
    for segment in plan(pa.table({"video_id": [row["video_id"]], "uri": [row["uri"]], "version": [""]})):
        for batch in decode(segment):
            actor.add(model(batch))
    actor.commit()
    return Results(storage)


def comparable(table: pa.Table) -> list[dict[str, Any]]:
    order = [(name, "ascending") for name in ("frame", "track_id") if name in table.column_names]
    kept = table.drop_columns([name for name in TIMES if name in table.column_names])
    return (kept.take(pc.sort_indices(kept, order)) if order else kept).to_pylist()
