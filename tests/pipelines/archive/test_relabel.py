import shutil
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest
import torch

from openvis_model.options import Synonyms
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import VocabularyEmbedding
from openvis_model.weights.checkpoint import load_checkpoint, save_checkpoint
from openvis_model.weights.files import BUILT_IN
from pipelines.archive.additions import ADDITIONS, FIRST_ID
from pipelines.archive.compaction import compact
from pipelines.archive.config import CompactConfig, RelabelConfig
from pipelines.archive.parts import Rows
from pipelines.archive.relabel import RelabelSummary, relabel
from pipelines.archive.relabel_part import Relabel, named
from pipelines.archive.reviews import Reviews, is_stale
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results
from pipelines.models import load_light_model, load_vocabulary
from pipelines.storage.files import Storage
from tests.pipelines.archive.archives import label_archive
from tests.pipelines.archive.decisions import decide
from tests.pipelines.storage.s3_server import Outage

pytestmark = pytest.mark.usefixtures("cluster")


def run(archive: Path, output: Path, **options: Any) -> RelabelSummary:
    options = {"labels": str(archive / "all"), "vocabulary": str(archive / "some.txt")} | options
    return relabel(RelabelConfig(output=str(output), **options))


def rows(output: Path, table: str) -> pa.Table:
    keys = [key for key in ("video_id", "track_id", "frame") if key in SCHEMAS[table].names]
    return Results(Storage(str(output))).read(table).sort_by([(key, "ascending") for key in keys])


def test_it_is_as_labelling_again(archive: Path, tmp_path: Path) -> None:
    summary = run(archive, tmp_path / "new")
    assert (summary.failures, summary.left_out, summary.videos, summary.skipped) == ({}, (), 5, 0)
    assert summary.tracks == rows(archive / "all", "tracks").num_rows > 5
    new, again = rows(tmp_path / "new", "tracks"), rows(archive / "some", "tracks")
    assert new.schema == again.schema
    assert new["category"] == again["category"] != rows(archive / "all", "tracks")["category"]
    for one, other in zip(new["top"].to_pylist(), again["top"].to_pylist(), strict=True):
        assert [each["category"] for each in one] == [each["category"] for each in other]
        assert [each["score"] for each in one] == pytest.approx([each["score"] for each in other], abs=1e-3)
    assert rows(tmp_path / "new", "masks") == rows(archive / "all", "masks")
    times = ["model_s", "tracker_s"]
    assert rows(tmp_path / "new", "videos").drop_columns(times) == rows(archive / "some", "videos").drop_columns(times)
    assert label_archive(archive, tmp_path / "new", "some.txt").skipped == 5  # so it can be gone on with


def test_the_best_synonym_is_another_vocabulary(archive: Path, tmp_path: Path) -> None:
    """Of the names, one has a synonym."""
    run(archive, tmp_path / "new", synonyms="best")
    scores = rows(tmp_path / "new", "tracks")["score"].to_numpy()
    model, difference = load_light_model(None), dict[str, float]()
    for synonyms in get_args(Synonyms):
        embedding = embed_vocabulary(load_vocabulary(str(archive / "some.txt"), synonyms), model.text_encoder)
        expected = named(rows(archive / "all", "tracks"), embedding, top=5)["score"].to_numpy()
        difference[synonyms] = abs(scores - expected).max()
    assert difference["best"] < 1e-5
    assert difference["mean"] > 1e-3
    with pytest.raises(ValueError, match="another vocabulary"):
        run(archive, tmp_path / "new")


def test_run_again_it_does_the_rest(archive: Path, tmp_path: Path) -> None:
    assert run(archive, tmp_path / "new").videos == 5
    before = rows(tmp_path / "new", "tracks")
    lost = Results(Storage(str(tmp_path / "new"))).parts()[0]
    (tmp_path / "new/videos" / f"{lost}.parquet").unlink()  # as if it had been killed before the last file
    again = run(archive, tmp_path / "new")
    assert 0 < again.skipped == 5 - again.videos
    assert rows(tmp_path / "new", "tracks") == before
    again = run(archive, tmp_path / "new")
    assert (again.skipped, again.videos, again.tracks) == (5, 0, 0)


@pytest.mark.slow
def test_s3_may_be_away_for_longer_than_a_lease_lasts(
    archive: Path, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a part is put, and before the output is settled."""
    monkeypatch.setattr("pipelines.storage.lease.RENEW_S", 0.1)
    monkeypatch.setattr("pipelines.storage.lease.EXPIRE_S", 1.0)
    put = Rows.put

    def put_during_outage(self: Rows, *arguments: Any) -> None:
        if not outage.stops:
            outage.begin(2.0)
        put(self, *arguments)

    def report(done: int, total: int) -> None:
        if done == total:
            outage.begin(2.0)

    monkeypatch.setattr(Rows, "put", put_during_outage)
    options = {"labels": str(archive / "all"), "vocabulary": str(archive / "some.txt")}
    summary = relabel(RelabelConfig(output="s3://outage/new", **options), report)
    assert (summary.videos, summary.failures, outage.stops) == (5, {}, 2)
    assert Results(Storage("s3://outage/new")).read("videos").num_rows == 5


def test_a_damaged_part_does_not_stop_the_others(archive: Path, tmp_path: Path) -> None:
    shutil.copytree(archive / "all", tmp_path / "labels")
    damaged = min((tmp_path / "labels/tracks").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-30])
    summary = run(archive, tmp_path / "new", labels=str(tmp_path / "labels"))
    assert list(summary.failures) == [damaged.stem]
    assert f"tracks/{damaged.name}: damaged" in summary.failures[damaged.stem]
    assert 0 < Results(Storage(str(tmp_path / "new"))).read("videos").num_rows == summary.videos < 5


def put_video(results: Results, like: dict[str, Any], *, tracks: int = 0, **changes: Any) -> None:
    """Labels a video again, as a later run would."""
    part = Rows()
    part.add("videos", [like | changes])
    part.add_table("tracks", results.read("tracks", video_id=like["video_id"]).slice(0, tracks))
    part.put(results.storage, f"{results.next_run()}-000000000000")


def test_what_was_labelled_anew_since_is_renamed_anew(archive: Path, tmp_path: Path) -> None:
    """Whatever parts were merged meanwhile, here or there."""
    labels, new = tmp_path / "labels", tmp_path / "new"
    shutil.copytree(archive / "all", labels)
    run(archive, new, labels=str(labels))
    compact(CompactConfig(labels=str(new)))
    source, target = (Results(Storage(str(folder))) for folder in (labels, new))
    assert len(target.parts()) == 1
    video = source.read("videos").to_pylist()[0]
    put_video(source, video, tracks=1, model_s=99.0)
    compact(CompactConfig(labels=str(labels)))

    assert run(archive, new, labels=str(labels)).skipped == 4
    assert target.read("tracks", video_id=video["video_id"]).num_rows == 1
    assert target.read("videos", video_id=video["video_id"])["model_s"].to_pylist() == [99.0]
    assert run(archive, new, labels=str(labels)).skipped == 5


def test_failed_videos_are_copied_but_never_over_labels(archive: Path, tmp_path: Path) -> None:
    labels, new = tmp_path / "labels", tmp_path / "new"
    shutil.copytree(archive / "all", labels)
    source, target = (Results(Storage(str(folder))) for folder in (labels, new))
    video = source.read("videos").to_pylist()[0]
    failed = video | {"video_id": "f", "status": "failed", "error": "empty file", "model_s": 0.0, "tracker_s": 0.0}
    put_video(source, failed)
    assert run(archive, new, labels=str(labels)).videos == 6
    put_video(source, failed, error="no video stream")
    assert (run(archive, new, labels=str(labels)).videos, run(archive, new, labels=str(labels)).videos) == (1, 0)
    assert target.read("videos", video_id="f")["error"].to_pylist() == ["no video stream"]
    fingerprint = target.read("videos")["vocabulary_fingerprint"][0].as_py()
    put_video(target, failed, status="ok", error=None, vocabulary_fingerprint=fingerprint)  # tried again there
    assert run(archive, new, labels=str(labels)).skipped == 6
    assert target.read("videos", video_id="f")["status"].to_pylist() == ["ok"]


def test_videos_of_another_model_are_left_out_and_told(archive: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    shutil.copytree(archive / "all", labels)
    source = Results(Storage(str(labels)))
    video = source.read("videos").to_pylist()[0]
    put_video(source, video, tracks=1, model_fingerprint="of another")
    summary = run(archive, tmp_path / "new", labels=str(labels))
    assert (summary.left_out, summary.videos) == ((video["video_id"],), 4)
    assert Results(Storage(str(tmp_path / "new"))).read("videos").num_rows == 4


def test_an_output_that_a_machine_does_not_see_is_named(archive: Path, tmp_path: Path) -> None:
    """There a folder of its own would appear, and be taken for the output."""
    results = Results(Storage(str(tmp_path)))
    vocabulary = VocabularyEmbedding(("star",), torch.ones(1, 1), 1.0)
    work = Relabel(
        source=results,
        target=results,
        vocabulary=vocabulary,
        fingerprint="v",
        top=1,
        run="000001-00000000",
        holder="",
        stall_s=1.0,
    )
    with pytest.raises(ValueError, match="^output: .* is another folder on some machine of the cluster"):
        work("a", None)


def test_what_does_not_go_together_is_named_before_anything_is_written(archive: Path, tmp_path: Path) -> None:
    model = load_checkpoint(BUILT_IN)
    with torch.no_grad():
        next(model.rollout_tracker.parameters()).add_(1)
    save_checkpoint(model, tmp_path / "other")
    refused = {
        "^checkpoint: all 5 videos in .* were labelled with another model; give the checkpoint": {
            "checkpoint": str(tmp_path / "other")
        },
        "^labels: .*absent has no labels; give the output of a labelling run": {"labels": str(tmp_path / "absent")},
        "^vocabulary: cannot read": {"vocabulary": str(tmp_path / "absent.txt")},
        "^top: expected at least 1, got 0": {"top": 0},
    }
    for message, options in refused.items():
        with pytest.raises(ValueError, match=message):
            run(archive, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="is the folder of the labels; choose another"):
        run(archive, archive / "all")
    run(archive, tmp_path / "new")
    with pytest.raises(ValueError, match="has videos labelled with another vocabulary or top; choose another"):
        run(archive, tmp_path / "new", top=3)


def test_decisions_hold_for_the_new_labels(archive: Path, tmp_path: Path) -> None:
    """Those of the last runs come along, too, and with `only` just the videos that they are about."""
    shutil.copytree(archive / "all", tmp_path / "labels")
    source, video = Reviews(Storage(str(tmp_path / "labels"))), rows(archive / "all", "videos").to_pylist()[0]
    prints = {name: video[name] for name in video if name.endswith("_fingerprint")}

    def accept(track_id: int) -> None:
        source.add([decide(track_id, "accept", "comet", video_id=video["video_id"], **prints)])

    accept(0)
    options = {"labels": str(tmp_path / "labels")}
    assert run(archive, tmp_path / "only", reviewed="only", **options).videos == 1
    assert run(archive, tmp_path / "new", **options).videos == 5
    accept(1)
    assert run(archive, tmp_path / "new", **options).skipped == 5
    target = Reviews(Storage(str(tmp_path / "new")))
    assert target.history() == source.history()
    new = rows(tmp_path / "new", "videos").to_pylist()[0]
    assert not any(is_stale(row, new) for row in target.read().to_pylist())
    accept(0)
    before = target.history()
    for storage in (source.storage, target.storage):  # as versions that counted ids added them
        with storage.write(f"{ADDITIONS}/{'0' * 32}-{FIRST_ID}.parquet") as file:
            file.write(storage.root.encode())
    with pytest.raises(ValueError, match=r"output: .* is another track than the one of .*/labels; choose another"):
        run(archive, tmp_path / "new", **options)
    assert target.history() == before
    run(archive, tmp_path / "ignored", reviewed="ignore", **options)
    assert not (tmp_path / "ignored" / "reviews").exists()
