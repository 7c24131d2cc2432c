from pathlib import Path

from pipelines.storage import s3


class Put:
    """Puts bytes on S3."""

    def __init__(self, tmp_path: Path) -> None:
        self.file = tmp_path / "put"

    def __call__(self, uri: str, content: bytes = b"x") -> str:
        self.file.write_bytes(content)
        s3.upload(self.file, uri)
        return uri
