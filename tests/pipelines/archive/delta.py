"""Reads the tables of an output as other programs do: by their Delta Lake logs, without any code of ours."""

import os

import pyarrow as pa
from deltalake import DeltaTable


def connection(output: str) -> dict[str, str]:
    """Options by which Delta Lake's readers reach an output."""
    if not output.startswith("s3://"):
        return {}
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
    return {name: os.environ[name] for name in names} | {"AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}


def read_table(output: str, table: str, version: int | None = None) -> pa.Table:
    return DeltaTable(f"{output}/{table}", version, connection(output)).to_pyarrow_table()
