import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.training.output import CHECKPOINTS, TrainingOutput, checkpoint_path, write_state

IDENTITY = {"steps": 3, "optimizer.betas": (0.9, 0.99), "stage": "a"}


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> TrainingOutput:
    """A folder, and S3."""
    if request.param == "local":
        return TrainingOutput.open(str(tmp_path / "output"))
    return TrainingOutput.open(f"{request.getfixturevalue('bucket')}/my output/")


def put(storage: TrainingOutput, tmp_path: Path, step: int) -> None:
    folder = tmp_path / f"new-{step}"
    (folder / "model").mkdir(parents=True)
    (folder / "model/weights").write_text(f"weights of {step}")
    (folder / "optimizer.pt").write_bytes(bytes(100))
    write_state(folder, {"step": step})
    storage.files.put_folder(folder, checkpoint_path(step))


def test_checkpoints_come_and_go(storage: TrainingOutput, tmp_path: Path) -> None:
    assert storage.checkpoints() == []
    for step in (5, 100, 20):
        put(storage, tmp_path, step)
    assert storage.checkpoints() == [5, 20, 100]
    storage.files.download_folder(checkpoint_path(20), tmp_path / "copy")
    state = json.loads((tmp_path / "copy/state.json").read_text())
    assert (state["step"], state["files"]) == (20, {"model/weights": 13, "optimizer.pt": 100})
    assert (tmp_path / "copy/model/weights").read_text() == "weights of 20"
    storage.keep_last(2)
    assert storage.checkpoints() == [20, 100]


def cut(storage: TrainingOutput, name: str) -> None:
    content = storage.files.read_bytes(name)
    assert content
    storage.write(name, content[:-1])


@pytest.mark.parametrize(
    "harm",
    [
        lambda storage, folder: cut(storage, f"{folder}/optimizer.pt"),
        lambda storage, folder: cut(storage, f"{folder}/model/weights"),
        lambda storage, folder: storage.files.remove_folder(f"{folder}/model"),
        lambda storage, folder: storage.files.remove(f"{folder}/state.json"),
        lambda storage, folder: storage.write(f"{folder}/state.json", b'{"step": 20, "files": {"opt'),
        lambda storage, folder: storage.write(f"{folder}/state.json", b""),
    ],
)
def test_half_written_checkpoints_do_not_count(
    storage: TrainingOutput, tmp_path: Path, harm: Callable[[TrainingOutput, str], None]
) -> None:
    put(storage, tmp_path, 10)
    put(storage, tmp_path, 20)
    harm(storage, checkpoint_path(20))
    assert storage.checkpoints() == [10]
    storage.keep_last(1)
    assert storage.checkpoints() == [10]
    storage.remove_incomplete()
    assert {path.split("/")[1] for path, _ in storage.files.sizes(CHECKPOINTS, deep=True)} == {"step-00000010"}


@pytest.mark.parametrize("name", ["optimizer.pt", "model/weights"])
def test_damage_at_equal_length_falls_back(storage: TrainingOutput, tmp_path: Path, name: str) -> None:
    for step in (10, 20, 30):
        put(storage, tmp_path, step)
    assert storage.intact() == [10, 20, 30]
    for step in (20, 30):
        path = f"{checkpoint_path(step)}/{name}"
        content = storage.files.read_bytes(path)
        assert content
        storage.write(path, content[:-1] + bytes([content[-1] ^ 1]))
    assert storage.intact() == storage.checkpoints() == [10]


def test_a_training_begins_once(storage: TrainingOutput, tmp_path: Path) -> None:
    assert storage.begin(IDENTITY) is False
    put(storage, tmp_path, 3)
    assert storage.begin(IDENTITY) is False
    storage.finish(3)
    assert storage.files.read_bytes("model/weights") == b"weights of 3"
    assert storage.begin(IDENTITY) is True


def test_a_model_that_was_being_put_in_place(storage: TrainingOutput, tmp_path: Path) -> None:
    storage.begin(IDENTITY)
    put(storage, tmp_path, 3)
    for leftover in ("model/weights", "model/other", ".model.0123.partial/weights"):
        storage.write(leftover, b"half")
    storage.finish(3)
    assert storage.files.read_bytes("model/weights") == b"weights of 3"
    assert storage.files.read_bytes("model/other") is None


def test_settings_may_be_mended_before_there_is_a_checkpoint(storage: TrainingOutput, tmp_path: Path) -> None:
    storage.begin(IDENTITY)
    mended = IDENTITY | {"steps": 4}
    assert storage.begin(mended) is False
    put(storage, tmp_path, 3)
    assert storage.begin(mended) is False
    with pytest.raises(ValueError, match="is of another training"):
        storage.begin(IDENTITY)


def test_another_training_is_refused(storage: TrainingOutput, tmp_path: Path) -> None:
    storage.begin(IDENTITY)
    put(storage, tmp_path, 2)
    with pytest.raises(ValueError, match=r"differs in new .output: None, now: 1., steps .output: 3, now: 4.; choose"):
        storage.begin(IDENTITY | {"steps": 4, "new": 1})


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"identity": 3, "finished": false}'])
def test_damage(storage: TrainingOutput, content: bytes) -> None:
    storage.write("training.json", content)
    with pytest.raises(ValueError, match="training.json cannot be read .*; choose another"):
        storage.begin(IDENTITY)


def test_an_output_that_a_machine_does_not_see_is_named(storage: TrainingOutput, tmp_path: Path) -> None:
    """There a folder of its own would appear, and the checkpoint be lost."""
    elsewhere = replace(storage, holder="of another folder")
    with pytest.raises(ValueError, match="^output: .* is another folder on some machine of the cluster"):
        elsewhere.outlast(lambda: put(elsewhere, tmp_path, 1))
    assert storage.checkpoints() == []


def test_outputs_that_cannot_be_used(tmp_path: Path, s3_environment: None) -> None:
    (tmp_path / "file").touch()
    for uri in (str(tmp_path / "file"), "s3://no-such-bucket/run"):
        with pytest.raises(ValueError, match=f"output: cannot write to {uri}.*; choose another folder"):
            TrainingOutput.open(uri)
    with pytest.raises(ValueError, match="gopher://a/b: its scheme is unknown; give local folders, s3://"):
        TrainingOutput.open("gopher://a/b")


def test_it_can_be_pickled(storage: TrainingOutput) -> None:
    pickle.loads(pickle.dumps(storage)).write("a", b"one")
    assert storage.files.size("a") == 3
