"""Model actors that do not see the driver's folder; `test_machines` has a real one."""

from dataclasses import replace
from pathlib import Path

import pytest

from openvis_model.weights.checkpoint import load_checkpoint, save_checkpoint
from openvis_model.weights.files import BUILT_IN
from pipelines.labelling import checkpoint_copy
from pipelines.labelling.checkpoint_copy import SharedCheckpoint
from pipelines.models import load_model
from pipelines.storage import s3


@pytest.fixture
def checkpoint(cluster: None, tmp_path: Path) -> SharedCheckpoint:
    fingerprint = save_checkpoint(load_checkpoint(BUILT_IN), tmp_path / "mine")
    (tmp_path / "mine/optimizer.pt").touch()
    return SharedCheckpoint.of(str(tmp_path / "mine"), fingerprint)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The folders that are loaded, each with its files."""
    folders: list[str | None] = []

    def load(path: str | None) -> object:
        folders.append(path)
        assert path is None or not list(Path(path).glob("*.pt")) or Path(path).name == "mine"
        return load_model(path)

    monkeypatch.setattr(checkpoint_copy, "load_model", load)
    return folders


def test_a_folder_that_is_the_same_here_is_read_here(checkpoint: SharedCheckpoint, loaded: list[str | None]) -> None:
    assert checkpoint.load().fingerprint == checkpoint.fingerprint
    assert loaded == [checkpoint.path]


@pytest.mark.parametrize("here", [None, "0123"])
def test_a_folder_that_is_not_here_is_copied_from_the_driver(
    here: str | None, checkpoint: SharedCheckpoint, loaded: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or that is another one here; in pieces, each of them small."""
    monkeypatch.setattr(checkpoint_copy, "_fingerprint", lambda _: here)
    monkeypatch.setattr(checkpoint_copy, "_PIECE", 2**20)
    assert checkpoint.load().fingerprint == checkpoint.fingerprint
    (copy,) = loaded
    assert copy not in (None, checkpoint.path)
    assert not Path(str(copy)).exists()


def test_a_folder_that_has_changed_is_refused(checkpoint: SharedCheckpoint, bucket: str) -> None:
    """Otherwise its labels would be under the name of another model."""
    earlier = replace(checkpoint, fingerprint="0123")
    with pytest.raises(ValueError, match="checkpoint: .*mine has changed since the run began; run it again"):
        earlier.load()
    for file in Path(str(checkpoint.path)).rglob("*"):
        if file.is_file():
            s3.upload(file, f"{bucket}/mine/{file.relative_to(str(checkpoint.path))}")
    on_s3 = SharedCheckpoint.of(f"{bucket}/mine", checkpoint.fingerprint)
    assert on_s3.load().fingerprint == checkpoint.fingerprint
    with pytest.raises(ValueError, match="s3://.*mine.* has changed"):
        replace(on_s3, fingerprint="0123").load()


def test_the_built_in_model_is_everywhere(cluster: None) -> None:
    expected = load_model(None).fingerprint
    assert SharedCheckpoint.of(None, expected).load().fingerprint == expected
