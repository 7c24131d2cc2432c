from functools import partial

import pytest

from tests.pipelines.video.clips import Clip, listed_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """A clip of `CLIPS`, written once in a test process; tests must not change it."""
    return partial(listed_clip, tmp_path_factory.mktemp("clips"))
