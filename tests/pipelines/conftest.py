from collections.abc import Iterator
from pathlib import Path

import pytest

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
