from collections.abc import Iterator
from pathlib import Path

import pytest

import tests.preload  # noqa: F401
from tests.pipelines.archive.archives import label_archive, write_archive
from tests.pipelines.labelling.discs import DiscModel
from tests.pipelines.storage.put import Put


@pytest.fixture
def put(tmp_path: Path) -> Put:
    return Put(tmp_path)


@pytest.fixture(scope="module")
def disc_model() -> Iterator[None]:
    """Labelling finds two discs in every frame, and loads no networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.labelling.pipeline.Model", DiscModel)
        yield


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, `some` as labelled with some names, `all` with all, by more processes and in smaller batches.

    Tests change copies. `ONE_ARCHIVE` lists the files that use it.
    """
    folder = tmp_path_factory.mktemp("archive")
    write_archive(folder)
    summary = label_archive(folder, folder / "some", "some.txt")
    assert (summary.ok, summary.failures, summary.frames) == (5, {}, 84)
    label_archive(folder, folder / "all", "all.txt", batch_size=3, segment_frames=8, model_actors=2, trackers=3)
    return folder
