"""jobs → pipelines → openvis_model, and each outside library in its place."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(file for package in ("openvis_model", "pipelines", "jobs") for file in (ROOT / package).rglob("*.py"))

FORBIDDEN = {
    "openvis_model": {"pipelines", "jobs", "tests", "ray", "boto3", "botocore", "pyarrow", "decord", "av", "argparse"},
    "pipelines": {"jobs", "tests", "argparse"},
    "jobs": {"tests", "boto3", "botocore", "decord"},
}


def imported(file: Path) -> Iterator[str]:
    """Top-level names that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import; name the package"
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file: Path) -> None:
    package = file.relative_to(ROOT).parts[0]
    assert not set(imported(file)) & FORBIDDEN[package]


@pytest.mark.parametrize("library", ["boto3", "decord"])
def test_one_file_imports(library: str) -> None:
    assert sum(library in set(imported(file)) for file in SOURCES) <= 1


def test_every_source_file_has_its_tests() -> None:
    for file in SOURCES:
        relative = file.relative_to(ROOT)
        if file.name not in ("__init__.py", "__main__.py"):
            assert (ROOT / "tests" / relative.parent / f"test_{file.name}").exists(), f"{relative} has no test file"
