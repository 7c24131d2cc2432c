import fcntl
import os
from pathlib import Path

import pytest

from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.archives import label_archive, write_archive
from tests.pipelines.archive.exports import SEEN, put
from tests.pipelines.archive.labels import part_name


@pytest.fixture
def labels(tmp_path: Path) -> str:
    """Two parts; a video of the first was labelled again in the second, so its first rows do not count."""
    results = Results(Storage(str(tmp_path / "labels")))
    put(results, part_name(1), {"a": {7: ("moon", 1.0, (0,))}, "b-2": SEEN["b-2"]})
    put(results, part_name(2), {"a": SEEN["a"], "c": SEEN["c"]})
    return results.storage.root


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, `all` as labelled with all names, `some` with some names, without that of the star; tests change copies.

    The two test processes share it: the first that needs it makes it.
    """
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "archive"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            write_archive(folder)
            label_archive(folder, folder / "all", "all.txt")
            label_archive(folder, folder / "some", "some.txt")
            (folder / "made").touch()
    return folder
