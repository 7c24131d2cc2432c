from pathlib import Path

import pytest

from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.exports import SEEN, put
from tests.pipelines.archive.labels import part_name


@pytest.fixture
def labels(tmp_path: Path) -> str:
    """Two parts; a video of the first was labelled again in the second, so its first rows do not count."""
    results = Results(Storage(str(tmp_path / "labels")))
    put(results, part_name(1), {"a": {7: ("moon", 1.0, (0,))}, "b-2": SEEN["b-2"]})
    put(results, part_name(2), {"a": SEEN["a"], "c": SEEN["c"]})
    return results.storage.root
