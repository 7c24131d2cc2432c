"""What programs and processes import: heavy libraries cost seconds of start-up, and memory in every worker."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from openvis_model.weights.files import BUILT_IN
from pipelines.archive.parts import Rows
from pipelines.archive.schemas import SCHEMAS
from pipelines.storage.files import Storage

HEAVY = {
    "av", "boto3", "matplotlib", "numba", "open_clip", "peft", "pyarrow", "pycocotools", "ray", "scipy",
    "torch", "torchvision", "transformers",
}  # fmt: skip

JOBS = (
    "ablate",
    "benchmark",
    "compact",
    "demo",
    "evaluate",
    "evaluate run",
    "evaluate score",
    "export",
    "label",
    "make_checkpoint",
    "make_shapes",
    "relabel",
    "render",
    "search",
    "train",
)

WITHOUT_NUMPY = set(JOBS) - {"ablate", "make_shapes", "render", "train"}

ABSENT = (
    "compact --labels absent",
    "evaluate score --protocol lvvis --ground_truth absent.json --predictions absent.json",
    "export --labels absent --output out --format coco",
    "label --input absent --output out --vocabulary absent.txt",
    "make_checkpoint --model absent --output out",
    "relabel --labels absent --output out --vocabulary absent.txt",
    "render --video absent.mp4 --labels absent --output out.mp4",
    "search --labels absent --text star",
    "train --output x --steps 1 --batch_size 1 --stage_1.start.preset mini --stage_1.data.annotations absent.json",
    "train --config absent.yaml",
)

WITHOUT_TORCH = (
    "pipelines.labelling.rows",
    "pipelines.labelling.decode_operator",
    "pipelines.labelling.track_sink",
    "pipelines.training.progress",
)

STEPS = """
import json, sys
packages = []
for code in json.load(sys.stdin):
    before = set(sys.modules)
    exec(code, {})
    packages.append([name.partition(".")[0] for name in set(sys.modules) - before])
print(json.dumps(packages))
"""


def imported(*steps: str) -> list[set[str]]:
    """Top-level packages that a new interpreter imports for each of some steps, beyond those of the steps before."""
    command = [sys.executable, "-c", STEPS]
    result = subprocess.run(command, input=json.dumps(steps), capture_output=True, text=True, check=False)
    assert not result.returncode, result.stderr
    return [set(packages) for packages in json.loads(result.stdout.splitlines()[-1])]


def helped(job: str) -> str:
    name, *command = job.split()
    return f"""
import contextlib, io
from jobs.{name} import main
with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
    main([*{command}, "--help"])
assert "python -m jobs.{name}" in text.getvalue()
with contextlib.redirect_stderr(io.StringIO()) as text:
    assert main([*{command}, "--outptu", "x"]) == 2
assert "error" in text.getvalue()
"""


def refused(arguments: str) -> str:
    job, *rest = arguments.split()
    return f"""
import contextlib, io
from jobs.{job} import main
with contextlib.redirect_stderr(io.StringIO()) as text:
    assert main({rest}) == 2
assert "absent" in text.getvalue(), text.getvalue()
"""


@pytest.fixture(scope="module")
def light() -> dict[str, set[str]]:
    """What each command line imports that says how to use it, or names its mistake."""
    steps = {job: helped(job) for job in JOBS} | {arguments: refused(arguments) for arguments in ABSENT}
    return dict(zip(steps, imported(*steps.values()), strict=True))


@pytest.mark.parametrize("job", JOBS)
def test_help_and_mistakes_import_nothing_heavy(job: str, light: dict[str, set[str]]) -> None:
    assert not light[job] & (HEAVY | {"numpy"} if job in WITHOUT_NUMPY else HEAVY)


@pytest.mark.parametrize("arguments", ABSENT)
def test_an_absent_file_is_named_before_anything_heavy_is_imported(arguments: str, light: dict[str, set[str]]) -> None:
    assert not light[arguments] & HEAVY


def test_processes_that_decode_or_watch_need_no_torch() -> None:
    """A node has many of them; torch would add seconds to the start and half a gigabyte to each."""
    steps = imported(*(f"import {module}" for module in WITHOUT_TORCH))
    assert not [module for module, packages in zip(WITHOUT_TORCH, steps, strict=True) if "torch" in packages]


def test_a_model_actor_needs_torch_alone() -> None:
    """The libraries of the networks that are trained take three times as long to import as the model to load."""
    sizes = "actors=1, at_once=2, threads=1, batch_size=8, objectness_floor=0"
    code = (
        "from tests.pipelines.labelling.discs import BUILT_IN_MODEL\n"
        "from pipelines.labelling.model_operator import Model\n"
        f"Model(BUILT_IN_MODEL, device='cpu', precision='float32', compile=False, {sizes})"
    )
    (packages,) = imported(code)
    assert not packages & {"open_clip", "peft", "scipy", "torchvision", "transformers"}


def test_scoring_needs_numba_alone(tmp_path: Path) -> None:
    """PyTorch's import would take longer than scoring a benchmark."""
    full, clip = {"size": [2, 3], "counts": "06"}, {"id": 1, "height": 2, "width": 3, "length": 1}
    entry = {"video_id": 1, "category_id": 1, "segmentations": [full]}
    annotations = [{"id": 1, "iscrowd": 0, "areas": [6], **entry}]
    truth = {"videos": [clip], "categories": [{"id": 1, "name": "a"}], "annotations": annotations}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "predictions.json").write_text(json.dumps([{"score": 1.0, **entry}]))
    names = ("ground_truth", "truth"), ("predictions", "predictions"), ("output", "metrics")
    files = [text for option, name in names for text in (f"--{option}", str(tmp_path / f"{name}.json"))]
    code = f"from jobs.evaluate import main\nassert main(['score', '--protocol', 'ytvis', *{files}]) == 0"
    (packages,) = imported(code)
    assert packages & HEAVY <= {"numba", "scipy"}, "numba imports scipy where that is installed"


def test_tracking_and_small_archives_need_no_networks_but_the_text_tower(tmp_path: Path) -> None:
    """CLIP's, the adapters', Mask2Former's and the cluster's libraries take longer to import than searching takes."""
    labels = tmp_path / "labels"
    put_tracks(labels)
    (tmp_path / "names.txt").write_text("red star\n")
    search = ["--labels", str(labels), "--text", "star"]
    relabel = ["--labels", str(labels), "--output", str(tmp_path / "new"), "--vocabulary", str(tmp_path / "names.txt")]
    *archives, tracking = imported(
        f"from jobs.search import main\nassert main({search}) == 0",
        f"from jobs.relabel import main\nassert main({relabel}) == 0",
        "import openvis_model.video_tracking",  # as in labelling's tracker actors
    )
    assert not set.union(*archives) & (HEAVY - {"boto3", "pyarrow", "torch"})
    assert not tracking & {"open_clip", "peft", "transformers"}


def put_tracks(labels: Path) -> None:
    """Writes an archive of one video with ten tracks of the built-in model."""
    fingerprint = json.loads((BUILT_IN / "config.json").read_text())["fingerprint"]
    video = {"video_id": "v", "uri": "v.mp4", "status": "ok", "tracks": 10, "model_fingerprint": fingerprint}
    embeddings = np.random.default_rng(0).normal(size=(10, 128))
    track = {"video_id": "v", "category": "star", "score": 0.5, "objectness": 0.9, "top": []}
    mask = {"video_id": "v", "frame": 0, "time_s": 0.0, "area": 4, "score": 0.5}
    rows = Rows()
    for table, added in (
        ("videos", [video]),
        (
            "tracks",
            [track | {"track_id": i, "embedding": row / np.linalg.norm(row)} for i, row in enumerate(embeddings)],
        ),
        ("masks", [mask | {"track_id": i} for i in range(10)]),
    ):
        rows.add(table, [dict.fromkeys(SCHEMAS[table].names) | row for row in added])
    rows.put(Storage(str(labels)), "000001-00000000-000000000000")
