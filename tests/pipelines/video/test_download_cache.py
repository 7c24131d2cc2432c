import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from pipelines.storage import s3
from pipelines.storage.cloud import CloudObject
from pipelines.video.download_cache import DownloadCache
from pipelines.video.names import list_images
from pipelines.video.plan import MachineError, VideoError
from tests.pipelines.storage.put import Put
from tests.pipelines.storage.s3_server import Proxy
from tests.waiting import wait_until

KILOBYTE = 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def cache_of(folder: Path, kilobytes: int = 1000) -> DownloadCache:
    return DownloadCache(max_bytes=kilobytes * KILOBYTE, folder=str(folder))


def content(cache: DownloadCache, uri: str) -> bytes:
    with cache.open(uri, cache.version(uri)) as path:
        return Path(path).read_bytes()


def kept(folder: Path) -> int:
    """Kilobytes in the cache."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) // KILOBYTE


def test_a_local_video_is_its_own_path(folder: Path) -> None:
    cache = cache_of(folder)
    with cache.open("/videos/a.mp4", cache.version("/videos/a.mp4")) as path:
        assert path == "/videos/a.mp4"
    assert not folder.exists()


def test_all_who_come_share_one_download(bucket: str, proxy: Proxy, put: Put, folder: Path) -> None:
    uri = put(f"{bucket}/a.mp4", data := np.random.default_rng(0).bytes(200_000))
    proxy.share = {"stall": 0.5}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: content(cache_of(folder), uri), range(8)))
    assert found == [data] * 8
    assert len([request for request in proxy.requests if request[0] == "GET"]) <= 1 + proxy.spoiled.count("stall")
    proxy.requests.clear()
    with cache_of(folder).open(uri, s3.head(uri).etag):
        assert [method for method, _ in proxy.requests] == ["HEAD"]


def test_nothing_leads_out_of_the_folder(bucket: str, put: Put, folder: Path, tmp_path: Path) -> None:
    for key in ("../../../escaped.mp4", "/etc/passwd", f"{'n' * 900}.mp4", "a.mp4/../b.sh"):
        uri = put(f"{bucket}/{key}", key.encode())
        with cache_of(folder).open(uri, s3.head(uri).etag) as path:
            assert Path(path).is_relative_to(folder)
            assert Path(path).name in ("content", "content.mp4")
            assert Path(path).read_bytes() == key.encode()
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "put"}


def test_it_is_this_users_alone(bucket: str, put: Put, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = put(f"{bucket}/a.mp4")
    content(cache_of(folder), uri)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o750)
    with pytest.raises(MachineError, match="other users own it or have access to it; remove it, or set TMPDIR"):
        content(cache_of(folder), uri)
    shutil.move(folder, aside := folder.with_name("aside"))
    aside.chmod(0o700)
    folder.symlink_to(aside)
    with pytest.raises(MachineError, match="other users own it or have access to it"):
        content(cache_of(folder), uri)
    monkeypatch.setattr("tempfile.tempdir", str(folder.parent))
    with DownloadCache().open(uri, s3.head(uri).etag) as path:
        assert Path(path).is_relative_to(folder.parent / f"openvis-downloads-{os.getuid()}")


def test_the_least_recently_used_go_first(bucket: str, proxy: Proxy, put: Put, folder: Path) -> None:
    """There is room before the next download begins, not after it."""
    cache = cache_of(folder, kilobytes=10)
    uris = [put(f"{bucket}/{i}.mp4", bytes([i]) * 4 * KILOBYTE) for i in range(3)]
    for uri in (uris[0], uris[1], uris[0]):
        content(cache, uri)
    most = []
    proxy.before = lambda method, path: most.append(kept(folder))
    content(cache, uris[2])
    assert max(most) == 8
    proxy.requests.clear()
    content(cache, uris[0])
    assert proxy.count("GET") == 0
    content(cache, uris[1])
    assert proxy.count("GET") == 1


def test_what_is_in_use_is_not_removed(bucket: str, put: Put, folder: Path) -> None:
    cache = cache_of(folder, kilobytes=1)
    one, two, three = (put(f"{bucket}/{i}.mp4", bytes([i]) * 4 * KILOBYTE) for i in range(3))
    with cache.open(one, cache.version(one)) as path:
        assert content(cache, two) == bytes([1]) * 4 * KILOBYTE  # larger than the bound
        assert content(cache, three) == bytes([2]) * 4 * KILOBYTE
        assert Path(path).read_bytes() == bytes(4 * KILOBYTE)
        assert kept(folder) == 8
    content(cache, two)
    assert kept(folder) == 4


def test_who_waits_for_what_is_removed_gets_it_anew(bucket: str, put: Put, folder: Path) -> None:
    uri = put(f"{bucket}/a.mp4", b"new")
    cache = cache_of(folder)
    content(cache, uri)
    (entry,) = (path for path in folder.iterdir() if path.is_dir())
    with ThreadPoolExecutor(1) as pool, (entry / "use").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = pool.submit(content, cache, uri)
        wait_until(lambda: Path(f"/proc/{os.getpid()}/fd").exists() and opened(entry / "use") == 2)
        shutil.rmtree(entry)
        fcntl.flock(file, fcntl.LOCK_UN)
        assert waiting.result(30) == b"new"
    assert entry.exists()


def opened(path: Path) -> int:
    """How often this process has a file open."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # another thread has closed it
            count += os.readlink(link) == str(path)
    return count


def test_a_killed_process_leaves_nothing_in_the_way(bucket: str, proxy: Proxy, put: Put, folder: Path) -> None:
    uri = put(f"{bucket}/a.mp4", data := np.random.default_rng(0).bytes(9 * KILOBYTE))
    killed = threading.Event()
    proxy.before = lambda method, path: None if method == "HEAD" else killed.wait(30)
    program = (
        "import sys; from pipelines.video.download_cache import DownloadCache\n"
        "with DownloadCache(folder=sys.argv[1]).open(*sys.argv[2:]): pass"
    )
    command = [sys.executable, "-c", program, str(folder), uri, s3.head(uri).etag]
    process = subprocess.Popen(command)
    wait_until(lambda: proxy.count("GET") > 0 and kept(folder) == 9)
    process.kill()
    process.wait()
    killed.set()
    cache = cache_of(folder, kilobytes=5)
    content(cache, put(f"{bucket}/b.mp4", b"x"))
    assert kept(folder) == 0  # removed as what is not in use
    assert content(cache_of(folder), uri) == data


def test_a_folder_of_frames(bucket: str, put: Put, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("1.png", "2.png", "10.PNG", "notes.txt", "sub/3.png"):
        put(f"{bucket}/f %/{name}", name.encode())
    uri = f"{bucket}/f %/"
    cache = cache_of(folder)
    with monkeypatch.context() as patch:
        patch.setattr(s3, "download", break_off)
        with pytest.raises(MachineError, match="cannot be downloaded: broken"):
            cache.open(uri, cache.version(uri)).__enter__()
    with cache.open(uri, version := cache.version(uri)) as path:
        assert list_images(path) == ["1.png", "2.png", "10.PNG"]
        assert (Path(path) / "10.PNG").read_bytes() == b"10.PNG"
    put(f"{bucket}/f %/2.png", b"other")
    assert cache.version(uri) != version
    with cache.open(uri, cache.version(uri)) as path:
        assert (Path(path) / "2.png").read_bytes() == b"other"
    for gone in (f"{bucket}/none/", f"{bucket}/none.mp4"):
        with pytest.raises(VideoError, match="file not found"):
            cache.version(gone)


def break_off(*_: object, **__: object) -> None:
    raise OSError(5, "broken")


def test_what_cannot_be_downloaded_is_tried_again(
    bucket: str, proxy: Proxy, put: Put, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    s3._client.cache_clear()
    uri = put(f"{bucket}/a.mp4", b"content")
    version = s3.head(uri).etag
    with pytest.raises(MachineError, match="cannot be downloaded: it has changed since it was listed; run again"):
        cache_of(folder).open(uri, '"other"').__enter__()
    proxy.share = {"503": 1.0}
    with pytest.raises(MachineError, match="cannot be downloaded: S3 answers 503 at http"):
        cache_of(folder).open(uri, version).__enter__()
    proxy.share = {}
    assert content(cache_of(folder), uri) == b"content"


def test_a_disk_that_is_smaller_than_the_limit_makes_room(
    bucket: str, put: Put, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not in use goes, what is in use stays."""
    cache = cache_of(folder)
    unused, used, new = (put(f"{bucket}/{name}.mp4", name.encode()) for name in ("unused", "used", "new"))
    content(cache, unused)
    download = s3.download

    def full(uri: str, file: BinaryIO, **options: Any) -> str:
        if sum(entry.is_dir() for entry in folder.iterdir()) > 2:
            raise OSError(errno.ENOSPC, "no space left on device")
        return download(uri, file, **options)

    with cache.open(used, cache.version(used)) as path:
        monkeypatch.setattr(s3, "download", full)
        assert content(cache, new) == b"new"
        assert Path(path).read_bytes() == b"used"
        with (
            cache.open(new, cache.version(new)),
            pytest.raises(MachineError, match="cannot be downloaded: no space left on device"),
        ):
            content(cache, unused)


@pytest.mark.parametrize(("code", "kind"), [("AccessDenied", VideoError), ("ExpiredToken", MachineError)])
def test_a_denied_object_is_its_own_fault_expired_credentials_are_not(
    code: str, kind: type[Exception], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(uri: str) -> CloudObject:
        raise OSError(*s3._CODES[code], uri)

    monkeypatch.setattr(s3, "head", refuse)
    with pytest.raises(kind, match="cannot be downloaded: "):
        cache_of(folder).version("s3://bucket/a.mp4")
