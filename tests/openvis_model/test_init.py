"""The package's public face."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import openvis_model as openvis
from openvis_model.weights.checkpoint import fingerprint, load_checkpoint
from openvis_model.weights.files import BUILT_IN
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig

README = Path(__file__).parents[2] / "README.md"


def test_importing_it_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import openvis_model as openvis; "
        "print(openvis.__version__, openvis.__doc__ is not None, dir(openvis) != []); "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{openvis.__version__} True True", "openvis_model"]


def test_every_public_name_is_there() -> None:
    for name in openvis._MODULES:
        assert getattr(openvis, name).__name__ == name
        assert name in dir(openvis)
    with pytest.raises(AttributeError, match="has no attribute 'VideoSegmentor'; it has AssociationConfig, "):
        _ = openvis.VideoSegmentor


def test_load_gives_the_built_in_model_or_a_checkpoint(tmp_path: Path) -> None:
    model = load_checkpoint(BUILT_IN)
    with torch.no_grad():
        next(model.rollout_tracker.parameters()).add_(1)
    openvis.save_checkpoint(model, tmp_path / "checkpoint")
    assert openvis.load(tmp_path / "checkpoint").fingerprint == fingerprint(model)
    assert openvis.load().fingerprint == fingerprint(load_checkpoint(BUILT_IN))
    with pytest.raises(ValueError, match="none: not a checkpoint folder"):
        openvis.load(tmp_path / "none")


def test_readme_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the videos of `make demo`, from the folder where it makes them."""
    write_split(tmp_path / "demo", "novel", 1, 0, SceneConfig())
    section = README.read_text(encoding="utf-8").partition("## The method as a library")[2]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[0]
    assert len(code.splitlines()) == 6
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    exec(code, {})  # noqa: S102 - our own README
    output = capsys.readouterr().out
    assert len(re.findall(r"^\d+ \[", output, re.MULTILINE)) == SceneConfig().frames
    assert re.search(r"^Track\(track_id=0, top=\(CategoryScore\(category='", output, re.MULTILINE)
