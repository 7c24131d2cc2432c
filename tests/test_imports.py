"""What programs and processes import: heavy libraries cost seconds of start-up, and memory in every worker."""

import subprocess
import sys

import pytest

HEAVY = {
    "av", "boto3", "decord", "matplotlib", "numba", "open_clip", "peft", "pyarrow", "pycocotools", "ray", "scipy",
    "torch", "torchvision", "transformers",
}  # fmt: skip

JOBS = (
    "ablate",
    "compact",
    "demo",
    "evaluate",
    "evaluate run",
    "evaluate score",
    "export",
    "label",
    "make_shapes",
    "relabel",
    "render",
    "search",
    "train",
)


def imported(code: str) -> set[str]:
    """Top-level packages that a new interpreter imports for this code."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not result.returncode, result.stderr
    return set(result.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("job", JOBS)
def test_help_and_mistakes_import_nothing_heavy(job: str) -> None:
    name, *command = job.split()
    code = f"""
import contextlib, io
from jobs.{name} import main
with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
    main([*{command}, "--help"])
assert "python -m jobs.{name}" in text.getvalue()
with contextlib.redirect_stderr(io.StringIO()) as text:
    assert main([*{command}, "--outptu", "x"]) == 2
assert "error" in text.getvalue()
"""
    assert not imported(code) & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        "compact --output absent",
        "evaluate score --protocol lvvis --ground_truth absent.json --predictions absent.json",
        "export --labels absent --output out --format coco",
        "label --input absent --output out --vocabulary absent.txt",
        "relabel --labels absent --output out --vocabulary absent.txt",
        "render --video absent.mp4 --labels absent --output out.mp4",
        "search --labels absent --text star",
        "train --output x --steps 1 --batch_size 1 --stage_1.start.preset mini --stage_1.data.annotations absent.json",
        "train --config absent.yaml",
    ],
)
def test_an_absent_file_is_named_before_anything_heavy_is_imported(arguments: str) -> None:
    job, *rest = arguments.split()
    code = f"""
import contextlib, io
from jobs.{job} import main
with contextlib.redirect_stderr(io.StringIO()) as text:
    assert main({rest}) == 2
assert "absent" in text.getvalue(), text.getvalue()
"""
    assert not imported(code) & HEAVY


@pytest.mark.parametrize(
    "module",
    [
        "pipelines.labelling.rows",
        "pipelines.labelling.decode_operator",
        "pipelines.labelling.track_sink",
        "pipelines.training.progress",
    ],
)
def test_processes_that_decode_or_watch_need_no_torch(module: str) -> None:
    """A node has many of them; torch would add seconds to the start and half a gigabyte to each."""
    assert "torch" not in imported(f"import {module}")
