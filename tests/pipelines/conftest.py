from pathlib import Path

import pytest

from pipelines.storage import s3


@pytest.fixture
def put(tmp_path: Path) -> "Put":
    return Put(tmp_path)


class Put:
    """Puts bytes on S3."""

    def __init__(self, tmp_path: Path) -> None:
        self.file = tmp_path / "put"

    def __call__(self, uri: str, content: bytes = b"x") -> str:
        self.file.write_bytes(content)
        s3.upload(self.file, uri)
        return uri
