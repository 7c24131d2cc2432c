"""The house: which room may import which, and where each outside library belongs.

A room is a package. A module may import its own room and rooms on lower floors; so no import runs back up, and no two
rooms import each other.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("openvis_model", "pipelines", "jobs")
SOURCES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))

FLOORS = (
    ("openvis_model", "pipelines.cluster", "pipelines.processes", "pipelines.storage"),
    ("openvis_model.folded",),
    ("openvis_model.weights", "pipelines.video", "pipelines.archive.formats"),
    ("openvis_model.training", "pipelines.models", "pipelines.recipes", "pipelines.datasets"),
    ("pipelines.archive", "pipelines.metrics", "pipelines.shapes"),
    ("pipelines.labelling", "pipelines.overlays"),
    ("pipelines.evaluation", "pipelines.benchmark", "pipelines.following"),
    ("pipelines.training", "pipelines.review"),
    ("jobs",),
)
"""Rooms from the ground floor up."""

FORBIDDEN = {
    "openvis_model": {"ray", "boto3", "botocore", "pyarrow", "av", "argparse"},
    "pipelines": {"argparse"},
    "jobs": {"boto3", "botocore"},
}

ONLY_IN = {
    "azure": "pipelines/storage/azure.py",
    "boto3": "pipelines/storage/s3.py",
    "deltalake": "pipelines/archive/delta_log.py",
    "duckdb": "pipelines/review/catalogue.py",
    "google": "pipelines/storage/gcs.py",
    "rerun": "pipelines/archive/formats/rerun.py",
    "supervision": "openvis_model/frame_result.py",
    "triton": "openvis_model/folded/deformable_kernel.py",
}

FRONT_DOOR = "openvis_model"
"""Its public names lead into every room of the package, so nothing in the package may come in through it."""


def module(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(file) for file in SOURCES}
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imported(file: Path) -> Iterator[str]:
    """Full names that a file imports, wherever in the file: of modules of this repository, and of others."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: relative import; name the package"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in MODULES else node.module or "" for name in names)


def room(name: str) -> str:
    """The innermost room that a module is in."""
    return max((each for each in FLOOR if f"{name}.".startswith(f"{each}.")), key=len)


def test_every_package_is_a_room() -> None:
    packages = {module(file) for file in SOURCES if file.name == "__init__.py"} - {"pipelines"}
    assert packages <= set(FLOOR)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_lead_to_lower_floors(package: str) -> None:
    wrong = [
        f"{module(file)} imports {name}"
        for file in SOURCES
        if module(file).split(".")[0] == package and module(file) not in ("pipelines", FRONT_DOOR)
        for name in imported(file)
        if name in MODULES and room(name) != (own := room(module(file))) and FLOOR[room(name)] >= FLOOR[own]
    ]
    assert not wrong


def test_nothing_in_the_package_imports_its_front_door() -> None:
    wrong = [module(file) for file in (ROOT / FRONT_DOOR).rglob("*.py") if FRONT_DOOR in imported(file)]
    assert not wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_libraries_stay_out_of(package: str) -> None:
    wrong = [
        f"{module(file)} imports {name}"
        for file in (ROOT / package).rglob("*.py")
        for name in imported(file)
        if name.partition(".")[0] in {*FORBIDDEN[package], "tests"}
    ]
    assert not wrong


@pytest.mark.parametrize(("library", "file"), ONLY_IN.items())
def test_one_file_imports(library: str, file: str) -> None:
    users = {
        str(each.relative_to(ROOT))
        for each in SOURCES
        if library in {name.partition(".")[0] for name in imported(each)}
    }
    assert users == {file}


def test_every_source_file_has_its_tests() -> None:
    for file in SOURCES:
        relative = file.relative_to(ROOT)
        if file.name not in ("__init__.py", "__main__.py"):
            assert (ROOT / "tests" / relative.parent / f"test_{file.name}").exists(), f"{relative} has no test file"


TESTS = sorted((ROOT / "tests").rglob("*.py"))


def test_tests_import_no_tests() -> None:
    wrong = [
        f"{module(file)} imports {name}"
        for file in TESTS
        for name in imported(file)
        if name.startswith("tests.") and any(part.startswith(("test_", "conftest")) for part in name.split("."))
    ]
    assert not wrong, "what tests share belongs in a module of its own, or in a fixture"


STARTS_RAY = {
    "tests/fixtures.py",
    "tests/pipelines/labelling/test_run_in_the_cloud.py",
    "tests/pipelines/labelling/test_checkpoint_copy.py",
    "tests/pipelines/labelling/test_machines.py",
    "tests/pipelines/labelling/test_prometheus.py",
    "tests/pipelines/training/test_preemption.py",
    "tests/pipelines/training/test_run_on_s3.py",
}


def test_tests_share_a_cluster() -> None:
    files = {
        str(file.relative_to(ROOT))
        for file in TESTS
        if "benchmarks" not in file.parts and file.name != Path(__file__).name
    }
    assert {file for file in files if "ray.init(" in (ROOT / file).read_text(encoding="utf-8")} == STARTS_RAY
