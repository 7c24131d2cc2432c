import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.archive.compaction import compact
from pipelines.archive.config import CompactConfig, SearchConfig
from pipelines.archive.part_map import map_parts
from pipelines.archive.parts import Rows
from pipelines.archive.search import search
from pipelines.archive.tables import Results
from pipelines.overlays.pictures import pictures
from pipelines.storage.files import Storage

pytestmark = pytest.mark.usefixtures("cluster")


def test_what_is_looked_for_is_found_first(archive: Path) -> None:
    found = search(SearchConfig(labels=str(archive / "some"), text="red striped star"))
    first = found.hits[0]
    assert Path(first.uri) == archive / "videos/star.mp4"
    assert first.similarity > 0.2 + max(hit.similarity for hit in found.hits if hit.uri != first.uri)
    assert first.category != "red striped star"
    assert first.first_frame <= first.frame <= first.last_frame
    assert first.time_s == pytest.approx(first.frame / 8)
    assert (found.failures, found.tracks > 5) == ({}, True)

    (tile,), failures = pictures([first])
    assert (tile.image.shape, tile.video, failures) == ((360, 480, 3), "star.mp4", {})
    moved = replace(first, uri=str(archive / "videos/moved.mp4"))
    assert pictures([moved]) == ([], {moved.uri: f"video: cannot read {moved.uri} (file not found)"})


def test_synonyms_are_averaged_and_nonsense_is_refused(archive: Path) -> None:
    labels = str(archive / "some")
    found = search(SearchConfig(labels=labels, text="red striped star, red star", top=1))
    assert Path(found.hits[0].uri).name == "star.mp4"
    for text, message in ((" , ", "^text: ' , ' has an empty word; give one"), ("giraffe", "giraffe")):
        with pytest.raises(ValueError, match=message):
            search(SearchConfig(labels=labels, text=text))
    with pytest.raises(ValueError, match="has no labels; give the output of a labelling run"):
        search(SearchConfig(labels=str(archive / "videos"), text="red star"))


def test_masks_are_read_once_a_part_and_tracks_that_are_gone_are_told(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(archive / "some", tmp_path / "labels")
    compact(CompactConfig(labels=str(tmp_path / "labels")))
    config = SearchConfig(labels=str(tmp_path / "labels"), text="red striped star", top=8)
    reads, row_groups = [], Results.row_groups

    def counted(self: Results, table: str, *rest: Any) -> Any:
        reads.append(table)
        return row_groups(self, table, *rest)

    monkeypatch.setattr(Results, "row_groups", counted)
    found = search(config)
    assert len(found.hits) == 8
    assert reads.count("masks") == 1

    def labelled_anew(*_: Any) -> Any:
        rows = list(map_parts(*_))
        part = Rows()
        part.add_table("videos", results.read("videos", video_id=found.hits[0].video_id))
        part.put(results.storage, f"{results.next_run()}-000000000000")
        return rows

    results = Results(Storage(config.labels))
    monkeypatch.setattr("pipelines.archive.search.map_parts", labelled_anew)
    again = search(config)
    gone = [hit for hit in found.hits if hit.video_id == found.hits[0].video_id]
    assert again.hits == tuple(hit for hit in found.hits if hit not in gone)
    assert again.failures == {gone[0].video_id: "was labelled again meanwhile; search again"}


def test_videos_of_another_model_are_left_out_and_told(archive: Path, tmp_path: Path) -> None:
    shutil.copytree(archive / "some", tmp_path / "labels")
    results = Results(Storage(str(tmp_path / "labels")))
    video = next(row for row in results.read("videos").to_pylist() if row["uri"].endswith("star.mp4"))
    part = Rows()
    part.add("videos", [video | {"model_fingerprint": "of another"}])
    part.add_table("tracks", results.read("tracks", video_id=video["video_id"]))
    part.put(results.storage, f"{results.next_run()}-000000000000")
    found = search(SearchConfig(labels=results.storage.root, text="red striped star"))
    assert found.left_out == (video["video_id"],)
    assert video["video_id"] not in {hit.video_id for hit in found.hits}
