import os
import pickle
import resource
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from openvis_model.weights.restricted_pickle import _ordered_dict
from openvis_model.weights.tensor_file import read_state


def written(tmp_path, content):
    path = tmp_path / "model.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return path


def read_model(path):
    return read_state(path, "model")


@pytest.mark.parametrize("numpy_core", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("protocol", range(6))
def test_arrays_are_read_as_they_were_written(protocol, numpy_core, tmp_path):
    random = np.random.default_rng(0)
    expected = OrderedDict(
        weight=random.normal(size=(2, 3, 5)).astype(np.float32),
        fortran=np.asfortranarray(random.normal(size=(4, 3))),
        strided=random.normal(size=(4, 6)).astype(np.float16)[::2, 1::2],
        index=random.integers(-9, 9, (3, 3)),
        flags=random.random(7) < 0.5,
        counter=np.array(12, np.int64),
    )
    expected._metadata = OrderedDict({"": {"version": 2}})  # as state dicts have it
    content = pickle.dumps({"model": expected, "__author__": "x", "best": np.float64(43.7)}, protocol)
    if protocol < 4:  # module names end with the line, without a length
        content = content.replace(b"numpy._core", numpy_core)
    found = read_model(written(tmp_path, content))
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), array, strict=True)
        assert found[name].is_contiguous()


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = function, arguments, state

    def __reduce__(self):
        return self.reduced


class Innocent:
    pass


@pytest.mark.parametrize(
    ("function", "named"),
    [(os.system, f"{os.name}.system"), (eval, "builtins.eval"), (getattr, "builtins.getattr"), (np.load, "numpy.load")],
)
@pytest.mark.parametrize("place", [lambda bomb: {"model": {"a": bomb}}, lambda bomb: {"model": {}, "x": [bomb]}])
def test_functions_are_refused_by_name_and_not_called(function, named, place, tmp_path):
    touched = tmp_path / "touched"
    command = f"touch {touched}" if function is os.system else f"open({str(touched)!r}, 'w')"
    path = written(tmp_path, place(Call(function, command)))
    with pytest.raises(ValueError, match="is refused") as error:
        read_model(path)
    assert str(path) in str(error.value)
    assert f"`{named}`" in str(error.value)
    assert "save its state dict as safetensors" in str(error.value)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "`os.system`"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.", "`collections.OrderedDict.fromkeys`"),
        ({"model": {"a": Innocent()}}, f"`{__name__}.Innocent`"),
        ({"model": {"a": torch.zeros(2)}}, "`torch._utils._rebuild_tensor_v2`"),
        ({"model": {"a": np.array([None])}}, "type 'O8'"),
        ({"model": {"a": np.zeros(2)}, "x": np.array([{}])}, "type 'O8'"),
        ({"model": {"a": np.zeros(2, "f4,f4")}}, "type 'V8'"),
        ({"model": {"a": np.array(["name"])}}, "type 'U4'"),
        ({"model": {"a": np.zeros(2, ">f4")}}, "byte order '>'"),
    ],
)
def test_all_but_arrays_of_numbers_is_refused(content, named, tmp_path):
    with pytest.raises(ValueError, match="is refused") as error:
        read_model(written(tmp_path, content))
    assert named in str(error.value)


WHOLE = pickle.dumps({"model": {"a": np.zeros(100, np.float32)}})
RECONSTRUCT = np.zeros(1).__reduce__()[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 no pickle",
        WHOLE[:-30],
        WHOLE[:20],
        {"model": {"a": Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (9,), np.dtype("f4"), False, b"short"))}},
        {"model": {"a": Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (9,), "f4", False, b"short"))}},
        b"\x80\x02cnumpy\nndarray\nN}X\x05\x00\x00\x00arrayNs\x86b.",  # sets an attribute of the class
        b"\x80\x02ccollections\nOrderedDict\nN}X\x0c\x00\x00\x00__defaults__)s\x86b.",  # of the function
    ],
)
def test_broken_files_are_an_error(content, tmp_path):
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=r"cannot be read|is refused") as error:
        read_model(path)
    assert str(path) in str(error.value)


LARGE = b"(" + b"K\x01" * 2 + b"t" + b"2\x86" * 50  # a tuple of two, twice in a tuple, which is twice in a tuple ...
PUNYCODE = "".join(map(chr, range(0x4E00, 0x4E10))).encode()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"}" + LARGE + b"Ns.", "a key that is a tuple"),
        (b"}(" + LARGE + b"Nu.", "a key that is a tuple"),
        (b"(" + LARGE + b"Nd.", "a key that is a tuple"),
        (b"\x80\x04(" + LARGE + b"\x91.", "a key that is a tuple"),
        (b"\x80\x04\x8f(" + LARGE + b"\x90.", "a key that is a tuple"),
        (b"ccollections\nOrderedDict\n(]" + LARGE + b"N\x86atR.", "a key that is a tuple"),
        (b"}X\x05\0\0\0model}" + LARGE + b"Nss.", "a key that is a tuple"),
        (b"cnumpy\ndtype\n" + LARGE + b"\x85R.", "an array of type tuple"),
        (b"cnumpy\nndarray\n(" + b"K\x01" * 101 + b"tR.", "a call with 101 arguments"),
        (b"c_codecs\nencode\n(X\0\0\0\0" + LARGE + b"tR.", "the codec tuple"),
        (
            b"c_codecs\nencode\n(X" + len(PUNYCODE).to_bytes(4, "little") + PUNYCODE + b"X\x08\0\0\0punycodetR.",
            "the codec 'punycode'",
        ),
    ],
)
def test_what_takes_years_is_refused(content: bytes, named: str, tmp_path: Path) -> None:
    """The hash of nested tuples that share their parts, their text; punycode takes the square of the text's length."""
    with pytest.raises(ValueError, match=f"is refused, and nothing in it was run: it needs {named}"):
        read_model(written(tmp_path, content))


def test_a_claim_of_many_bytes_takes_none(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="cannot be read"):
        read_model(written(tmp_path, b"\x80\x05\x96" + (3 * 10**9).to_bytes(8, "little") + b"."))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10**6  # kB


def test_a_list_makes_one_dict(tmp_path: Path) -> None:
    """Or a thousand pairs, given to a thousand calls, would be a million."""
    pairs = [("a", 1), ("b", 2)]
    assert list(_ordered_dict(pairs)) == ["a", "b"]
    assert not _ordered_dict(pairs)


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_that_share_their_content_are_refused(protocol: int, tmp_path: Path) -> None:
    """A thousand of them would take a thousand times the memory of the file."""
    data, number_type = bytes(1000), np.dtype("f4")
    array = Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (250,), number_type, False, data))
    weights = {str(i): Call(*array.reduced[:1], *array.reduced[1], state=array.reduced[2]) for i in range(50)}
    with pytest.raises(ValueError, match="is refused, .* more memory than the file has bytes"):
        read_model(written(tmp_path, pickle.dumps({"model": weights}, protocol)))


def test_a_file_leaves_nothing_behind(tmp_path: Path) -> None:
    """Else one file could change what the next one holds."""
    defaults = b"\x80\x02ccollections\nOrderedDict\nN}X\x0c\x00\x00\x00__defaults__X\x02\x00\x00\x00ab\x85s\x86b."
    with pytest.raises(ValueError, match="is refused, .* to set attributes of a function"):
        read_model(written(tmp_path, defaults))
    assert list(read_model(written(tmp_path, {"model": OrderedDict(a=np.zeros(1))}))) == ["a"]
