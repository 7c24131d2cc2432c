from pathlib import Path

import pytest

from tests.pipelines.labelling.discs import DiscModel
from tests.pipelines.storage.put import Put


@pytest.fixture
def put(tmp_path: Path) -> Put:
    return Put(tmp_path)


@pytest.fixture
def disc_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labelling finds two discs in every frame, and loads no networks."""
    monkeypatch.setattr("pipelines.labelling.pipeline.Model", DiscModel)
