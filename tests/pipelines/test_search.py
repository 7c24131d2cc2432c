from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from pipelines.search import SearchConfig, pictures, search
from tests.pipelines.archive import label_archive, write_archive


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
