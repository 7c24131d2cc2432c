"""Damage to Parquet files."""

from pathlib import Path


def damage_footer(file: Path) -> None:
    """Spoils the metadata, about which Arrow raises an `OSError` without a file or a number."""
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[-8:-4], "little")
    data[-8 - size : -8] = b"\xff" * size
    file.write_bytes(data)
