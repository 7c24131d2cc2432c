import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import fs

from pipelines.storage import s3
from pipelines.training.output import CHECKPOINTS, TrainingStorage, checkpoint_path, write_state

IDENTITY = {"steps": 3, "optimizer.betas": (0.9, 0.99), "stage": "a"}


@pytest.fixture(params=["local", "remote", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> TrainingStorage:
    """A folder; a file system that is no folder; and S3."""
    if request.param == "local":
        return TrainingStorage.open(str(tmp_path / "output"))
    if request.param == "s3":
        return TrainingStorage.open(f"{request.getfixturevalue('bucket')}/my output/")
    return TrainingStorage(fs._MockFileSystem(), "bucket/output")


def put(storage: TrainingStorage, tmp_path: Path, step: int) -> None:
    folder = tmp_path / f"new-{step}"
    (folder / "model").mkdir(parents=True)
    (folder / "model/weights").write_text(f"weights of {step}")
    (folder / "optimizer.pt").write_bytes(bytes(100))
    write_state(folder, {"step": step})
    storage.copy_in(folder, checkpoint_path(step))


def test_files(storage: TrainingStorage) -> None:
    assert storage.read("a/b") is None
    storage.write("a/b", b"one")
    storage.write("a/b", b"two")
    assert storage.read("a/b") == b"two"
    infos = storage.filesystem.get_file_info(fs.FileSelector(storage.path("a")))
    assert [info.base_name for info in infos] == ["b"]
    storage.remove("a")
    storage.remove("a")
    assert storage.read("a/b") is None


def test_checkpoints_come_and_go(storage: TrainingStorage, tmp_path: Path) -> None:
    assert storage.checkpoints() == []
    for step in (5, 100, 20):
        put(storage, tmp_path, step)
    assert storage.checkpoints() == [5, 20, 100]
    storage.copy_out(checkpoint_path(20), tmp_path / "copy")
    assert json.loads((tmp_path / "copy/state.json").read_text()) == {
        "step": 20,
        "files": {"model/weights": 13, "optimizer.pt": 100},
    }
    assert (tmp_path / "copy/model/weights").read_text() == "weights of 20"
    storage.keep_last(2)
    assert storage.checkpoints() == [20, 100]


def cut(storage: TrainingStorage, name: str) -> None:
    content = storage.read(name)
    assert content
    storage.write(name, content[:-1])


@pytest.mark.parametrize(
    "harm",
    [
        lambda storage, folder: cut(storage, f"{folder}/optimizer.pt"),
        lambda storage, folder: cut(storage, f"{folder}/model/weights"),
        lambda storage, folder: storage.remove(f"{folder}/model"),
        lambda storage, folder: storage.remove(f"{folder}/state.json"),
        lambda storage, folder: storage.write(f"{folder}/state.json", b'{"step": 20, "files": {"opt'),
        lambda storage, folder: storage.write(f"{folder}/state.json", b""),
    ],
)
def test_half_written_checkpoints_do_not_count(
    storage: TrainingStorage, tmp_path: Path, harm: Callable[[TrainingStorage, str], None]
) -> None:
    put(storage, tmp_path, 10)
    put(storage, tmp_path, 20)
    harm(storage, checkpoint_path(20))
    assert storage.checkpoints() == [10]
    storage.keep_last(1)
    assert storage.checkpoints() == [10]
    storage.remove_incomplete()
    infos = storage.filesystem.get_file_info(fs.FileSelector(storage.path(CHECKPOINTS)))
    assert [info.base_name for info in infos] == ["step-00000010"]


def test_a_training_begins_once(storage: TrainingStorage, tmp_path: Path) -> None:
    assert storage.begin(IDENTITY) is False
    put(storage, tmp_path, 3)
    assert storage.begin(IDENTITY) is False
    storage.finish(3)
    assert storage.read("model/weights") == b"weights of 3"
    assert storage.begin(IDENTITY) is True


def test_a_model_that_was_being_put_in_place(storage: TrainingStorage, tmp_path: Path) -> None:
    storage.begin(IDENTITY)
    put(storage, tmp_path, 3)
    for leftover in ("model/weights", "model/other", ".model.partial/weights"):
        storage.write(leftover, b"half")
    storage.finish(3)
    assert storage.read("model/weights") == b"weights of 3"
    assert storage.read("model/other") is None


def test_another_training_is_refused(storage: TrainingStorage) -> None:
    storage.begin(IDENTITY)
    with pytest.raises(ValueError, match=r"differs in new .there None, here 1., steps .there 3, here 4.; choose"):
        storage.begin(IDENTITY | {"steps": 4, "new": 1})


def test_a_snapshot_of_ray_train_is_not_trusted(storage: TrainingStorage) -> None:
    storage.begin(IDENTITY)
    storage.write("checkpoints/checkpoint_manager_snapshot.json", b"{")
    storage.begin(IDENTITY)
    assert storage.read("checkpoints/checkpoint_manager_snapshot.json") is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"identity": 3, "finished": false}'])
def test_damage(storage: TrainingStorage, content: bytes) -> None:
    storage.write("training.json", content)
    with pytest.raises(ValueError, match="training.json cannot be read .*; choose another"):
        storage.begin(IDENTITY)


def test_outputs_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for uri in (str(tmp_path / "file"), "gopher://a/b"):
        with pytest.raises(ValueError, match=f"output: cannot write to {uri} .*; choose another folder"):
            TrainingStorage.open(uri)


def test_s3_of_ones_own(bucket: str) -> None:
    """pyarrow is sent to where the AWS configuration says, also in the processes of a training."""
    storage = pickle.loads(pickle.dumps(TrainingStorage.open(f"{bucket}/run/")))
    storage.write("a", b"one")
    assert s3.head(f"{bucket}/run/a").size == 3
    with pytest.raises(ValueError, match="output: cannot write to s3://no-such-bucket/run .*; choose another folder"):
        TrainingStorage.open("s3://no-such-bucket/run")
