import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from openvis_model.weights.tensor_file import read_state

NUMBER_TYPES = (
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
)


def test_tensors_are_read_as_they_were_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = 9 * torch.randn(6, 8)
    expected = {str(number_type): base.to(number_type) for number_type in NUMBER_TYPES}
    expected |= {
        "transposed": base.T,
        "part": base[1:3, 2:7:2],
        "scalar": torch.tensor(4.5),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(base.clone()),
    }
    torch.save({"model": OrderedDict(expected), "optimizer": {"moments": [base], "betas": (0.9, 0.99)}}, tmp_path / "a")
    found = read_state(tmp_path / "a", "model")
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_tensors_beside_the_weights_are_not_read(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(3)}, "optimizer": {"b": torch.zeros(300)}}, tmp_path / "whole")
    change(tmp_path / "whole", lambda name, content: None if len(content) == 1200 else content)
    assert torch.equal(read_state(tmp_path / "whole", "model")["a"], torch.ones(3))


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("steps", torch.tensor(7))
        self.sizes = [3, 2]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * torch.ones(2)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.blocks = Inner(), nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.inner(self.blocks(x))


@pytest.mark.filterwarnings("ignore")  # torch advises other formats for new programs
@pytest.mark.parametrize("compiled", [torch.jit.script, lambda model: torch.jit.trace(model, torch.zeros(1, 3))])
def test_weights_of_a_program_are_read_and_its_code_is_not(
    compiled: Callable[[nn.Module], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Outer()
    compiled(model).save(tmp_path / "program.pt")
    change(tmp_path / "program.pt", lambda name, content: b"harm" if "/code/" in name else content)
    monkeypatch.setattr(torch.jit, "load", lambda *_: pytest.fail("the program was loaded"))
    found = read_state(tmp_path / "program.pt", "model")
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in model.state_dict().items())


def change(file: Path, new: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED) -> None:
    """Writes an archive again with other entries."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: new(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            if content is not None:
                archive.writestr(name, content)


PICKLED = b"\x80\x02}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n(%s%s\x89NtRs."
STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (PICKLED % (STORAGE, b"K\0K\x04\x85K\x01\x85"), ""),
        (PICKLED % (STORAGE, b"K\x01K\x04\x85K\x01\x85"), "cannot be read .*out of bounds"),
        (PICKLED % (STORAGE, b"K\0K\x04\x85K\x09\x85"), "cannot be read .*out of bounds"),
        (PICKLED % (STORAGE, b"K\0J\xff\xff\xff\x7f\x85K\0\x85"), "more memory than the file has"),
        (PICKLED % (STORAGE, b"K\0J\xff\xff\xff\xff\x85K\x01\x85"), "not a part of"),
        (PICKLED % (STORAGE, b"K\0X\x01\0\0\0x\x85K\x01\x85"), "not a part of"),
        (PICKLED % (b"K\0", b"K\0K\x04\x85K\x01\x85"), "not a part of a int"),
        (PICKLED % (STORAGE.replace(b"Float", b"ComplexFloat"), b"K\0))"), "`torch.ComplexFloatStorage`"),
        (PICKLED % (STORAGE.replace(b"\x000X", b"\x009X"), b"K\0K\x04\x85K\x01\x85"), "cannot be read .*data/9"),
        (b"cos\nsystem\n(S'true'\ntR.", "`os.system`"),
        (b"c__torch__\nA\n)\x81}X\x01\0\0\0aK\x01sb.", "holds no weights"),
        (b"c__torch__\nA\n)\x81.", "without attributes"),
        (
            b"c__torch__\nA\n)\x81}X\xe8\x03\0\0" + b"a" * 1000 + b"c__torch__\nB\n)\x81}bsb.",
            "names of more than 1000 characters",
        ),
        (b"c__torch__\nA\n)\x81q\0}X\x01\0\0\0bh\0sb.", "a module in several places"),
        (
            b"c__torch__\nA\n)\x81}(X\x01\0\0\0bc__torch__\nB\n)\x81}bq\0X\x01\0\0\0ch\0ub.",
            "a module in several places",
        ),
    ],
)
def test_hostile_archives_are_refused(pickled: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "hostile.pt"
    torch.save({"a": torch.ones(4)}, file)
    change(file, lambda name, content: pickled if name.endswith("data.pkl") else content)
    if not message:
        assert torch.equal(read_state(file, "model")["a"], torch.ones(4))
        return
    with pytest.raises(ValueError, match=rf"hostile\.pt.*{message}"):
        read_state(file, "model")


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    """Little of a file could become much memory."""
    torch.save({"a": torch.zeros(9000)}, tmp_path / "model.pt")
    change(tmp_path / "model.pt", lambda _, content: content, zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="needs the compressed entry"):
        read_state(tmp_path / "model.pt", "model")


def test_entries_that_contain_each_other_are_refused(tmp_path: Path) -> None:
    """Fifty of them would take fifty times the memory of the file."""
    file = tmp_path / "model.pt"
    torch.save({str(i): torch.zeros(36000, dtype=torch.uint8)[:1] for i in range(50)}, file)
    with zipfile.ZipFile(file) as archive:
        pickled = archive.read("model/data.pkl")
    content, nested = bytes(36000), []
    for i in reversed(range(50)):
        entry = zipfile.ZipInfo(f"model/data/{i}")
        entry.CRC, entry.file_size, entry.compress_size = zlib.crc32(content), len(content), len(content)
        content = entry.FileHeader() + content
        nested.append((entry, len(content)))
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model/data.pkl", pickled)
        archive.fp.write(content)
        archive.start_dir = archive.fp.tell()
        for entry, size in nested:
            entry.header_offset = archive.start_dir - size
            archive.filelist.append(entry)
    with pytest.raises(ValueError, match="needs entries that overlap"):
        read_state(file, "model")


def test_other_byte_orders_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4)}, tmp_path / "model.pt")
    change(tmp_path / "model.pt", lambda name, content: b"big" if name.endswith("byteorder") else content)
    with pytest.raises(ValueError, match="another byte order"):
        read_state(tmp_path / "model.pt", "model")
