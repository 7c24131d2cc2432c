import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from openvis_model.weights.tensor_file import read_state

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(3)}


def write_safetensors(file: Path) -> None:
    save_file(STATE, file)


def write_state(file: Path) -> None:
    torch.save(STATE, file)


def write_checkpoint(file: Path) -> None:
    torch.save({"epoch": 32, "model": STATE, "optimizer": {"lr": 0.1}}, file)


def write_other_content(file: Path) -> None:
    beside = {"shape": torch.Size([2]), "type": torch.float32, "seen": {1, 2}, "none": b""}
    torch.save(beside | {"model": STATE}, file)


def write_arrays(file: Path) -> None:
    file.write_bytes(pickle.dumps({"model": {name: tensor.numpy() for name, tensor in STATE.items()}}))


@pytest.mark.parametrize("write", [write_safetensors, write_state, write_checkpoint, write_other_content, write_arrays])
def test_each_form_gives_the_same(write, tmp_path: Path) -> None:
    file = tmp_path / ("model.safetensors" if write is write_safetensors else "model.any")
    write(file)
    found = read_state(file, "model")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


@pytest.mark.parametrize("whole", [write_safetensors, write_state, write_arrays])
def test_damaged_files_are_named(whole, tmp_path: Path) -> None:
    file = tmp_path / ("model.safetensors" if whole is write_safetensors else "model.any")
    whole(file)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"model\.\w+ cannot be read .*is its download complete"):
        read_state(file, "model")


def test_old_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """Torch's own reader of them hashes keys, which may take years."""
    torch.save({"model": STATE}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"old\.pt holds the format of torch before version 1\.6; .* newer torch"):
        read_state(tmp_path / "old.pt", "model")


@pytest.mark.parametrize("content", [[1], {}, {"model": {}}, {"model": None}])
def test_file_without_weights_is_an_error(content: object, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="holds no weights"):
        read_state(tmp_path / "model.pkl", "model")


def test_weights_that_are_not_arrays_are_named(tmp_path: Path) -> None:
    content = {"model": {"c": 1.0, "a": np.zeros(2), "b": [np.zeros(2)]}}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="not arrays: b, c; save its state dict alone"):
        read_state(tmp_path / "model.pkl", "model")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.pkl cannot be read: there is no such file"):
        read_state(tmp_path / "model.pkl", "model")
