import pytest

from tests.pipelines.following.videos import Scene, crossing


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return crossing(tmp_path_factory.mktemp("crossing") / "crossing.mp4")
