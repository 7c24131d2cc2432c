import hashlib
import json
import secrets
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.archive.additions import ADDITIONS, FIRST_ID, Additions
from pipelines.archive.compaction import compact
from pipelines.archive.config import CompactConfig, ExportConfig, Reviewed
from pipelines.archive.export import export_annotations
from pipelines.archive.formats.video_labels import Row
from pipelines.archive.reviews import Decision, Reviews
from pipelines.archive.tables import Results
from pipelines.review.catalogue import Catalogue
from pipelines.review.decided import Decided
from pipelines.storage.files import Storage
from tests.pipelines.archive.damage import damage_footer
from tests.pipelines.archive.labels import part_name
from tests.pipelines.review.archives import embedding, model, put_video

VIDEO = {"video_id": "a/b", "model_fingerprint": "m", "vocabulary_fingerprint": "v", "config_fingerprint": "c"}
TRACK = {"category": "cup", "score": 0.9, "top": [{"category": "cup", "score": 0.9}], "first_frame": 2}
TRACK |= {"last_frame": 4, "frames": 2, "objectness": 0.9, "embedding": [0.6, 0.8], "unknown": 0.0}


def masks(*frames: int) -> pa.Table:
    shape = {"x": 1, "y": 0, "width": 1, "height": 2, "area": 2, "score": 0.5}
    rle = {"size": [2, 3], "counts": "222"}
    rows = [{"track_id": 999_999, "frame": frame, "time_s": frame / 8, **shape, "rle": rle} for frame in frames]
    return pa.Table.from_pylist(rows)


def add(storage: Storage, video: Row = VIDEO, reviewer: str = "ann") -> int:
    return Additions(storage).add(TRACK, masks(2, 4), video, "1s: point 1 0 = cup", reviewer)


@pytest.mark.parametrize("where", ["folder", "cloud"])
def test_an_added_track_is_read_as_it_was(where: str, bucket: str, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path) if where == "folder" else f"{bucket}/labels")
    additions = Additions(storage)
    assert additions.tracks().num_rows == 0
    first, second, other = add(storage), add(storage, reviewer="ben"), add(storage, VIDEO | {"video_id": "c"})
    assert min(first, second, other) >= FIRST_ID
    rows = {(row["video_id"], row["track_id"]): row for row in additions.tracks().to_pylist()}
    assert set(rows) == {("a/b", first), ("a/b", second), ("c", other)}
    row = rows["a/b", second]
    assert (row["category"], row["reviewer"], row["prompt"]) == ("cup", "ben", "1s: point 1 0 = cup")
    assert row["embedding"] == pytest.approx([0.6, 0.8])
    found = additions.masks([row]).to_pylist()
    assert [(mask["track_id"], mask["frame"], mask["time_s"]) for mask in found] == [
        (second, 2, 0.25),
        (second, 4, 0.5),
    ]
    assert found[0]["rle"] == {"size": [2, 3], "counts": "222"}


def test_a_track_that_an_earlier_version_added_is_read(tmp_path: Path) -> None:
    """Its file has no colour."""
    added = add(Storage(str(tmp_path)))
    (path,) = (tmp_path / ADDITIONS).glob("*.parquet")
    pq.write_table(pq.read_table(path).drop_columns("colour"), path)
    (row,) = Additions(Storage(str(tmp_path))).tracks().to_pylist()
    assert (row["track_id"], row["colour"]) == (added, None)


def test_two_reviewers_who_add_at_once_both_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if chance gives them the same id."""
    storage, drawn = Storage(str(tmp_path)), [7, 7, 8]
    monkeypatch.setattr(secrets, "randbelow", lambda most: drawn.pop(0))
    assert [add(storage), add(storage)] == [FIRST_ID + 7, FIRST_ID + 8]


def test_tracks_that_were_added_to_two_copies_of_an_archive_come_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives of earlier versions may have the same id for two tracks; no decision may land on the other one."""
    source, target = (Additions(Storage(str(tmp_path / name))) for name in ("source", "target"))
    added = {add(source.storage), add(target.storage, reviewer="ben")}
    source.copy_to(target)
    source.copy_to(target)
    assert set(target.tracks()["track_id"].to_pylist()) == added
    monkeypatch.setattr(secrets, "randbelow", lambda most: 0)
    for additions in (source, target):
        add(additions.storage)
    monkeypatch.undo()
    add(source.storage)
    with pytest.raises(
        ValueError, match=rf"output: {tmp_path}/target/additions/.*-{FIRST_ID}.parquet is another track"
    ):
        source.copy_to(target)
    assert target.tracks().num_rows == 3
    monkeypatch.setattr(target, "names", list)  # as seen before a reviewer has added it
    with pytest.raises(ValueError, match="is another track than the one of .*/source; choose another output"):
        source.copy_to(target)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    add(Storage(str(tmp_path)))
    (file,) = (tmp_path / ADDITIONS).glob("*.parquet")
    damage_footer(file)
    with pytest.raises(ValueError, match=rf"(?s){file.name}: damaged .* remove it"):
        Additions(Storage(str(tmp_path))).tracks()
    file.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=rf"{file.name}: damaged .* remove it"):
        Additions(Storage(str(tmp_path))).tracks()


def labelled(folder: Path) -> Results:
    """An archive with a video of a star, to which a cup was added."""
    results = Results(Storage(str(folder)))
    put_video(results, part_name(1, 1), "v", "/v.mp4", {1: ("red striped star", 0.9, (0, 2))}, [0.0, 0.1, 0.2])
    (video,) = results.read("videos").to_pylist()
    track = TRACK | {"embedding": embedding("cup")}
    seen = masks(1, 2).to_pylist()
    counts = {"size": [96, 128], "counts": results.read("masks")["rle"][0].as_py()["counts"]}
    table = pa.Table.from_pylist([mask | {"rle": counts} for mask in seen])
    track_id = Additions(results.storage).add(track, table, video, "1s: point 1 0 = cup", "ann")
    about = {name: video[name] for name in VIDEO}
    Reviews(results.storage).add(
        [Decision(track_id=track_id, action="accept", category="cup", reviewer="ann", **about)]
    )
    return results


def exported(labels: Path, output: Path, reviewed: Reviewed) -> dict[str, list[int | None]]:
    """Frames of each track, by category."""
    export_annotations(ExportConfig(labels=str(labels), output=str(output), format="youtube_vis", reviewed=reviewed))
    truth = json.loads((output / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in truth["categories"]}
    return {
        names[each["category_id"]]: [at for at, one in enumerate(each["segmentations"]) if one]
        for each in truth["annotations"]
    }


def test_an_export_has_added_tracks(tmp_path: Path) -> None:
    labelled(tmp_path / "labels")
    labels = tmp_path / "labels"
    assert exported(labels, tmp_path / "all", "respect") == {"red striped star": [0, 2], "cup": [1, 2]}
    assert set(exported(labels, tmp_path / "only", "only")) == {"cup"}
    assert set(exported(labels, tmp_path / "none", "ignore")) == {"red striped star"}
    compact(CompactConfig(labels=str(labels), keep_h=0))
    assert set(exported(labels, tmp_path / "compact", "respect")) == {"red striped star", "cup"}


def test_a_rejected_one_is_left_out_and_a_renamed_one_renamed(tmp_path: Path) -> None:
    results = labelled(tmp_path / "labels")
    (row,) = Reviews(results.storage).read().to_pylist()
    given = {name: row[name] for name in (*VIDEO, "track_id", "reviewer")}
    Reviews(results.storage).add([Decision(action="rename", category="mug", **given)])
    assert "mug" in exported(tmp_path / "labels", tmp_path / "renamed", "respect")
    Reviews(results.storage).add([Decision(action="reject", category="cup", **given)])
    assert set(exported(tmp_path / "labels", tmp_path / "rejected", "respect")) == {"red striped star"}


def test_with_other_labels_it_is_stale(tmp_path: Path) -> None:
    results = labelled(tmp_path / "labels")
    (row,) = Additions(results.storage).tracks().to_pylist()
    other = Storage(str(tmp_path / "other"))
    Additions(results.storage).copy_to(Additions(other))
    Additions(results.storage).copy_to(Additions(other))
    assert Additions(other).tracks().to_pylist() == [row]
    again = Results(other)
    put_video(again, part_name(1, 1), "v", "/v.mp4", {1: ("red striped star", 0.9, (0, 2))}, [0.0, 0.1, 0.2])
    assert set(exported(tmp_path / "other", tmp_path / "copied", "respect")) == {"red striped star", "cup"}
    add(other, VIDEO | {"video_id": "v", "model_fingerprint": "another"})
    assert len(Additions(other).names()) == 2
    assert set(exported(tmp_path / "other", tmp_path / "stale", "respect")) == {"red striped star", "cup"}


def test_rows_of_a_catalogue_keep_their_numbers_while_tracks_are_added(tmp_path: Path) -> None:
    """Of whatever videos: the names of their files are in another order."""
    results = Results(Storage(str(tmp_path)))
    videos = list[Row]()
    last_first = sorted("abcd", key=lambda name: hashlib.sha256(name.encode()).hexdigest(), reverse=True)
    for number, name in enumerate(last_first, start=1):
        tracks = {1: ("red striped star", 0.9, (0, 2))}
        put_video(results, part_name(1, number), name, f"/{name}.mp4", tracks, [0.0, 0.1, 0.2])
        videos.append(VIDEO | {"video_id": name, "model_fingerprint": model().fingerprint})
    numbers = list[int]()
    for number, video in enumerate(videos):
        track_id = add(results.storage, video)
        catalogue = Catalogue(results, Decided(Reviews(results.storage)))
        numbers += [row["row"] for row in catalogue.tracks_of(video["video_id"]) if row["track_id"] == track_id]
        assert catalogue.size == 5 + number
    assert numbers == [4, 5, 6, 7]
    assert catalogue.numbering == Catalogue(results, Decided(Reviews(results.storage))).numbering
