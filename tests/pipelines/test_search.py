from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from pipelines.parts import Rows
from pipelines.results import Results
from pipelines.search import Best, SearchConfig, pictures, search
from pipelines.storage import Storage
from tests.pipelines.archive import label_archive, write_archive
from tests.pipelines.labels import part_name, put_part, row


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    write_archive(folder)
    label_archive(folder, folder / "labels", "some.txt")  # the star is not among these names
    return folder


def test_what_is_looked_for_is_found_first(archive: Path) -> None:
    found = search(SearchConfig(labels=str(archive / "labels"), text="red striped star"))
    first = found.hits[0]
    assert Path(first.uri) == archive / "videos/star.mp4"
    assert first.similarity > 0.2 + max(hit.similarity for hit in found.hits if hit.uri != first.uri)
    assert first.category != "red striped star"
    assert first.first_frame <= first.frame <= first.last_frame
    assert first.time_s == pytest.approx(first.frame / 8)
    assert (found.failures, found.tracks > 5) == ({}, True)

    (tile,), failures = pictures([first])
    assert (tile.image.shape, tile.video, failures) == ((360, 480, 3), "star.mp4", {})
    (archive / "videos/star.mp4").rename(archive / "moved.mp4")
    assert pictures([first]) == ([], {first.uri: f"video: cannot read {first.uri} (file not found)"})
    (archive / "moved.mp4").rename(archive / "videos/star.mp4")


def test_synonyms_are_averaged_and_nonsense_is_refused(archive: Path) -> None:
    labels = str(archive / "labels")
    found = search(SearchConfig(labels=labels, text="red striped star, red star", top=1))
    assert Path(found.hits[0].uri).name == "star.mp4"
    for text, message in ((" , ", "vocabulary: category 0 has an empty name"), ("giraffe", "giraffe")):
        with pytest.raises(ValueError, match=message):
            search(SearchConfig(labels=labels, text=text))
    with pytest.raises(ValueError, match="has no labels; give the output of a labelling run"):
        search(SearchConfig(labels=str(archive / "videos"), text="red star"))
    with pytest.raises(ValueError, match="^top: expected at least 1, got 0"):
        SearchConfig(labels=labels, text="red star", top=0)
    with pytest.raises(ValueError, match=r"^sheet: a.jpg must end with .png"):
        SearchConfig(labels=labels, text="red star", sheet="a.jpg")


def test_the_best_of_a_part_are_those_with_the_largest_cosine(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20_000, 4))  # several row groups
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = Rows()
    for number, vector in enumerate(vectors):
        video = "gone" if number % 2 else "there"
        rows.add("tracks", [row("tracks", video_id=video, track_id=number, embedding=vector.tolist())])
    for video in ("there", "gone"):
        rows.add("videos", [row("videos", video_id=video, status="ok")])
    results = Results(Storage(str(tmp_path)))
    rows.put(results.storage, part_name(1))
    put_part(results, part_name(2), "gone", category="star")  # labelled anew: its old rows do not count
    counting = results.counting()[part_name(1)]
    text = vectors[0].astype(np.float32)
    found = Best(results=results, text=text, top=5)(part_name(1), counting)
    expected = 2 * np.argsort(-(vectors[::2] @ vectors[0]))[:5]
    assert [hit["track_id"] for hit in found["hits"]] == expected.tolist()
    assert found["hits"][0]["similarity"] == pytest.approx(1)
    assert found["tracks"] == 10_000
