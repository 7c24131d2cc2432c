from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.archive.parts import Rows
from pipelines.archive.reviews import Reviews
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results
from pipelines.review.catalogue import Catalogue
from pipelines.review.decided import Decided
from pipelines.review.similarity import Embeddings
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name, row

TRACKS, D = 40, 16


def embeddings(folder: Path, *models: str) -> tuple[Embeddings, np.ndarray]:
    """Embeddings of a part for each model, with one video each; and the exact ones."""
    results = Results(Storage(str(folder)))
    exact = np.random.default_rng(0).normal(size=(len(models) * TRACKS, D)).astype(np.float32)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    for number, model in enumerate(models):
        rows = Rows()
        rows.add("videos", [row("videos", video_id=model, status="ok", model_fingerprint=model)])
        vectors = exact[number * TRACKS : (number + 1) * TRACKS].tolist()
        own = {"video_id": model, "category": "star", "score": 0.5, "frames": 1}
        rows.add("tracks", [row("tracks", **own, track_id=i, embedding=vector) for i, vector in enumerate(vectors)])
        rows.put(results.storage, part_name(number + 1))
    loaded = Embeddings(Catalogue(results, Decided(Reviews(results.storage))))
    loaded.load()
    return loaded, exact


def test_the_nearest_are_found(tmp_path: Path) -> None:
    loaded, exact = embeddings(tmp_path, "m")
    cosines = exact @ exact[7]
    rows, similarity = loaded.nearest(exact[7], np.arange(TRACKS, dtype=np.int32), 10, "m")
    assert rows[0] == 7
    np.testing.assert_allclose(cosines[rows], np.sort(cosines)[::-1][:10], atol=0.01)  # but for rounding, the best
    np.testing.assert_allclose(similarity, cosines[rows], atol=0.01)
    assert sorted(similarity, reverse=True) == similarity.tolist()
    np.testing.assert_allclose(loaded.of(7), exact[7], atol=0.005)
    assert loaded.ready.is_set()
    assert loaded.loaded == TRACKS


def test_embeddings_that_two_threads_load_are_read_once(tmp_path: Path) -> None:
    loaded, exact = embeddings(tmp_path, "m")
    loaded.load()
    assert (loaded.error, loaded.loaded) == (None, TRACKS)
    np.testing.assert_allclose(loaded.of(7), exact[7], atol=0.005)


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a track was added, those of the labels are known."""
    loaded, exact = embeddings(tmp_path, "m", "n")
    catalogue = loaded.catalogue
    video = catalogue.video("n")
    assert video is not None
    track = row("tracks", video_id="n", category="star", embedding=exact[3].tolist(), frames=1)
    catalogue.additions.add(track, SCHEMAS["masks"].empty_table(), video, "a box", "ann")
    read = list[str]()
    row_groups = Results.row_groups

    def count(results: Results, table: str, *others: Any) -> Any:
        read.append(table)
        return row_groups(results, table, *others)

    again = Catalogue(catalogue.results, catalogue.decided)
    monkeypatch.setattr(Results, "row_groups", count)
    more = Embeddings(again, loaded)
    more.load()
    assert read == []
    assert (more.error, more.loaded) == (None, 2 * TRACKS + 1)
    every = np.arange(2 * TRACKS + 1, dtype=np.int32)
    np.testing.assert_array_equal(more.codes(every[:-1])[0], loaded.codes(every[:-1])[0])
    assert [more.model_of(each) for each in (0, TRACKS, 2 * TRACKS)] == ["m", "n", "n"]
    assert more.nearest(exact[3], every, 1, "n")[0].tolist() == [2 * TRACKS]
    rows = Rows()
    rows.add("videos", [row("videos", video_id="o", status="ok", model_fingerprint="m")])
    rows.put(catalogue.results.storage, part_name(3))
    Embeddings(Catalogue(catalogue.results, catalogue.decided), more).load()
    assert "tracks" in read


def test_only_tracks_that_pass_the_filter_are_compared(tmp_path: Path) -> None:
    loaded, exact = embeddings(tmp_path, "m")
    some = np.array([30, 3, 9], np.int32)
    rows, _ = loaded.nearest(exact[3], some, 2, "m")
    assert rows[0] == 3
    assert set(rows.tolist()) < {30, 3, 9}
    rows, _ = loaded.nearest(exact[3], some[:0], 2, "m")
    assert len(rows) == 0


def test_tracks_of_other_models_are_left_out(tmp_path: Path) -> None:
    loaded, exact = embeddings(tmp_path, "m", "n")
    everything = np.arange(2 * TRACKS, dtype=np.int32)
    rows, _ = loaded.nearest(exact[0], everything, 2 * TRACKS, "n")
    assert set(rows.tolist()) == set(range(TRACKS, 2 * TRACKS))
    assert loaded.model_of(0) == "m"
    assert len(loaded.nearest(exact[0], everything, 5, "unknown")[0]) == 0


def test_labels_that_vanish_meanwhile_are_an_error_that_is_told(tmp_path: Path) -> None:
    loaded, _ = embeddings(tmp_path, "m")
    (tmp_path / "tracks" / f"{part_name(1)}.parquet").unlink()
    again = Embeddings(loaded.catalogue)
    again.load()
    assert again.error is not None
    assert "No such file" in again.error
