"""What every cloud besides S3 promises, at a real endpoint; `test_s3.py` asks the same of S3."""

import errno
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest

from pipelines.storage import cloud
from pipelines.storage.cloud import PART_BYTES, CloudObject
from pipelines.storage.objects import cloud_of, download_all, head, key_of, list_objects, local_copy
from pipelines.storage.outage import is_away
from tests.pipelines.storage.clouds import Place
from tests.pipelines.storage.put import Put
from tests.pipelines.storage.s3_server import FAULTS, SECRET

CONTENT = np.random.default_rng(0).bytes(3 * 2**20 + 17)

KEYS = (
    "plain.mp4",
    "with space/and  two.mp4",
    "日本/é e\u0301.mp4",
    "100%25 50%/%2e%2e/a%2Fb.mp4",
    "a+b.mp4",
    "what?x=1&y=2#part.mp4",
    "quotes'\"<>&;.mp4",
    "//two slashes//.mp4",
    f"{'n' * 900}.mp4",
)


def content(uri: str) -> bytes:
    with local_copy(uri) as copy:
        return copy.read_bytes()


def test_any_key(place: Place, put: Put) -> None:
    for key in KEYS:
        put(f"{place.bucket}/{key}", key.encode())
    found = {entry.uri: entry for entry in list_objects(place.bucket)}
    assert found.keys() == {f"{place.bucket}/{key}" for key in KEYS}
    for key in KEYS:
        uri = f"{place.bucket}/{key}"
        assert key_of(uri) == key
        assert head(uri) == found[uri] == CloudObject(uri=uri, size=len(key.encode()), etag=found[uri].etag)
        assert content(uri) == key.encode()
        cloud_of(uri).remove(uri)
        cloud_of(uri).remove(uri)
    assert list(list_objects(place.bucket)) == []


def test_a_delimiter_leaves_deeper_objects_out(place: Place, put: Put) -> None:
    for key in ("a/b", "a/c/d", "ab"):
        put(f"{place.bucket}/{key}")
    assert [found.uri for found in list_objects(f"{place.bucket}/a/", delimiter="/")] == [f"{place.bucket}/a/b"]
    assert [found.uri for found in list_objects(f"{place.bucket}/a")] == [
        f"{place.bucket}/{key}" for key in ("a/b", "a/c/d", "ab")
    ]


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, 2 * PART_BYTES + 1])
def test_sizes(place: Place, put: Put, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    uri = put(f"{place.bucket}/a", data)
    assert content(uri) == data
    tail, entry = cloud_of(uri).read_tail(uri, 700)
    assert (tail, entry) == (data[-700:], head(uri))


def test_a_range_is_read_alone(place: Place, put: Put) -> None:
    uri = put(f"{place.bucket}/a", CONTENT)
    etag = head(uri).etag
    place.proxy.sent = 0
    assert cloud_of(uri).read_range(uri, 1000, 5000, etag=etag) == CONTENT[1000:5000]
    assert place.proxy.sent == 4000
    put(uri, CONTENT[::-1])
    with pytest.raises(OSError, match="it changed while it was read; run again"):
        cloud_of(uri).read_range(uri, 1000, 5000, etag=etag)
    with pytest.raises(OSError, match="it changed while it was read"):
        download_all([(CloudObject(uri=uri, size=len(CONTENT), etag=etag), put.file)])


def test_the_same_bytes_come_out_whatever_goes_wrong(
    place: Place, put: Put, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each fifteenth request meets each of the faults."""
    monkeypatch.setattr(cloud, "READ_TIMEOUT_S", 0.3)
    place.proxy.share = dict.fromkeys(FAULTS, 1 / 15)
    for number in range(8):
        data = CONTENT[number * 300_000 :]
        uri = put(f"{place.bucket}/{number}", data)
        assert content(uri) == data
        assert len(list(list_objects(place.bucket))) == number + 1
    for number in range(8):
        cloud_of(place.bucket).remove(f"{place.bucket}/{number}")
    assert list(list_objects(place.bucket)) == []
    assert set(place.proxy.spoiled) == set(FAULTS)


def test_one_writer_is_first(place: Place) -> None:
    uri = f"{place.bucket}/lease.json"
    replace = cloud_of(uri).replace_tagged
    assert cloud_of(uri).read_tagged(uri) is None
    first = replace(uri, b"1", None)
    assert first is not None
    assert replace(uri, b"2", None) is None
    second = replace(uri, b"3", first)
    assert second not in (None, first)
    assert replace(uri, b"4", first) is None
    assert cloud_of(uri).read_tagged(uri) == (b"3", second)


def test_a_writer_whose_answer_is_lost_recognises_its_own(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = ["cut"]
    monkeypatch.setattr(place.proxy, "fault", lambda: faults.pop() if faults else None)
    uri = f"{place.bucket}/lease.json"
    tag = cloud_of(uri).replace_tagged(uri, b"mine", None)
    assert not faults
    assert (b"mine", tag) == cloud_of(uri).read_tagged(uri)


def test_what_is_not_there(place: Place) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such object or bucket: '.*/gone.mp4'"):
        head(f"{place.bucket}/gone.mp4")
    with pytest.raises(FileNotFoundError, match="there is no such (container|object or bucket)"):
        list(list_objects(f"{place.bucket}-of-others"))


def test_refusals_say_what_to_do(place: Place) -> None:
    place.proxy.refuse(403, "AccountIsDisabled", SECRET)
    with pytest.raises(OSError, match="access is denied; grant the rights that docs/output.md lists") as caught:
        list(list_objects(place.bucket))
    assert caught.value.errno == errno.EPERM
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_nobody_there_is_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.storage.gcs.PATIENCE_S", 0.1)
    monkeypatch.setattr("pipelines.storage.azure.ATTEMPTS", 1)
    place.proxy.share = {"503": 1.0}
    with pytest.raises(OSError, match="try again|cannot be reached") as caught:
        head(f"{place.bucket}/a")
    assert is_away(caught.value)
    place.proxy.share = {"reset": 1.0}
    with pytest.raises(OSError, match="cannot be reached") as caught:
        head(f"{place.bucket}/a")
    assert is_away(caught.value)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for uri, module, extra in (("gs://b/k", "gcs", "gcs"), ("az://c/k", "azure", "azure")):
        monkeypatch.delitem(sys.modules, f"pipelines.storage.{module}", raising=False)
        monkeypatch.setitem(sys.modules, "google.cloud" if module == "gcs" else "azure.core", None)
        with pytest.raises(ValueError, match=rf"{uri}: needs .*, which is not installed; .*'.\[{extra}\]'"):
            cloud_of(uri)
    with pytest.raises(ValueError, match="ftp://x: is of no known cloud; give s3://, gs://, az:// and abfss://"):
        cloud_of("ftp://x")
