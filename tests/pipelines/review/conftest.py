from pathlib import Path

import pytest

from pipelines.review.config import ReviewConfig
from pipelines.review.session import Review
from tests.pipelines.review.archives import write_labels, write_videos


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("review") / "videos"
    write_videos(folder)
    return folder


@pytest.fixture
def labels(videos: Path, tmp_path: Path) -> str:
    return write_labels(str(tmp_path / "labels"), str(videos)).storage.root


@pytest.fixture
def review(labels: str) -> Review:
    """A review with all that searching needs."""
    review = Review(ReviewConfig(labels=labels, reviewer="ann"))
    review.warm_up()
    return review
