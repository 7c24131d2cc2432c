from pathlib import Path

import pytest

from tests.pipelines.storage.put import Put


@pytest.fixture
def put(tmp_path: Path) -> Put:
    return Put(tmp_path)
