from pathlib import Path

from pipelines.storage.objects import cloud_of


class Put:
    """Puts bytes into the cloud."""

    def __init__(self, tmp_path: Path) -> None:
        self.file = tmp_path / "put"

    def __call__(self, uri: str, content: bytes = b"x") -> str:
        self.file.write_bytes(content)
        cloud_of(uri).upload(self.file, uri)
        return uri
