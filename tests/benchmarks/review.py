"""`python -m tests.benchmarks.review`: the server of the review page on a million tracks of 10,000 videos, D = 512.

How long it takes to open the page, to filter and to search, the slowest of several of each, and the server's memory
before and after a thousand answers. Videos are not there; of pictures, only what tables are read for is measured.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import psutil
import pyarrow as pa

from pipelines.archive.parts import Rows
from pipelines.archive.tables import SCHEMAS, Results
from pipelines.storage.files import Storage

TRACKS, VIDEOS, PARTS, D = 1_000_000, 10_000, 16, 512
NAMES = np.array([f"category {number}" for number in range(1196)])  # as many as LV-VIS has
EACH = TRACKS // VIDEOS
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"order": "score"},
    {"category": "category 7"},
    {"min_score": 0.3, "max_score": 0.6, "order": "-uncertain"},
    {"min_frames": 100, "order": "-length"},
    {"name": "camera-0007"},
    {"decision": "undecided", "min_score": 0.5},
    {"decision": "decided"},
    {"order": "video"},
)


def write_part(results: Results, number: int) -> None:
    """A part of videos with a hundred tracks each, seen in a frame each; random embeddings."""
    rng, videos = np.random.default_rng(number), VIDEOS // PARTS
    ids = [f"camera-{number:04d}-{i:06d}" for i in range(videos)]
    rows, tracks = Rows(), videos * EACH
    about = {"status": "ok", "fps": 25.0, "width": 1920, "height": 1080, "duration_s": 60.0}
    prints = dict.fromkeys(("model_fingerprint", "vocabulary_fingerprint", "config_fingerprint"), "x")
    empty = dict.fromkeys(SCHEMAS["videos"].names)
    rows.add("videos", [empty | {"video_id": i, "uri": f"/videos/{i}.mp4"} | about | prints for i in ids])
    own = {
        "video_id": pa.array(np.repeat(ids, EACH)),
        "track_id": pa.array(np.tile(np.arange(EACH, dtype=np.int32), videos)),
    }
    vectors = rng.normal(size=(tracks, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first = rng.integers(0, 1000, tracks, dtype=np.int32)
    frames = rng.integers(1, 300, tracks, dtype=np.int32)
    add(
        rows,
        "tracks",
        own
        | {
            "category": pa.array(NAMES[rng.integers(0, len(NAMES), tracks)]),
            "score": pa.array(rng.random(tracks, np.float32)),
            "first_frame": pa.array(first),
            "last_frame": pa.array(first + frames),
            "frames": pa.array(frames),
            "embedding": pa.ListArray.from_arrays(np.arange(tracks + 1, dtype=np.int32) * D, vectors.ravel()),
        },
    )
    ones = pa.array(np.ones(tracks, np.int32))
    rle = pa.array([{"size": [1080, 1920], "counts": "0X3"}] * tracks, SCHEMAS["masks"].field("rle").type)
    shape = {"width": ones, "height": ones, "area": ones, "rle": rle}
    add(rows, "masks", own | shape | {"frame": pa.array(first), "time_s": pa.array(first / 25.0)})
    rows.put(results.storage, f"000001-00000000-{number:012x}")


def add(rows: Rows, table: str, columns: dict[str, pa.Array]) -> None:
    schema, size = SCHEMAS[table], len(columns["video_id"])
    missing = {field.name: pa.nulls(size, field.type) for field in schema if field.name not in columns}
    whole = pa.table(columns | missing).select(schema.names).cast(schema)
    for start in range(0, size, 8192):
        rows.add_table(table, whole.slice(start, 8192))


class Server:
    """A server of its own process."""

    def __init__(self, labels: str) -> None:
        begin = time.perf_counter()
        command = [sys.executable, "-m", "jobs.review", "--labels", labels]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        match = re.search(
            r"(http://[^/]+)/\?token=(\S+)", self.process.stdout.readline() + self.process.stdout.readline()
        )
        assert match is not None
        self.root, self.token = match.groups()
        self.get("")
        self.start_s = time.perf_counter() - begin

    def get(self, path: str, **query: Any) -> bytes:
        words = urlencode({"token": self.token} | query)
        with urllib.request.urlopen(f"{self.root}/{path}?{words}") as answer:  # noqa: S310 - our own server
            content: bytes = answer.read()
            return content

    def found(self, **query: Any) -> list[dict[str, Any]]:
        """The first screen of what a filter or search finds: two questions, as the page asks them."""
        found = json.loads(self.get("api/find", **query))["found"]
        rows: list[dict[str, Any]] = json.loads(self.get("api/rows", found=found, offset=0, limit=60))
        return rows

    def decide(self, row: dict[str, Any]) -> None:
        decision = {"video_id": row["video_id"], "track_id": row["track_id"], "action": "accept", "category": "x"}
        body = json.dumps({"decisions": [decision]}).encode()
        url = f"{self.root}/api/decide?{urlencode({'token': self.token})}"
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310
        urllib.request.urlopen(request).close()  # noqa: S310

    def memory_mb(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss / 1e6)


def slowest(name: str, act: Any, inputs: Any) -> None:
    """Prints the median and the slowest, milliseconds, of a call for each input, of which each was made once before."""
    times = []
    for given in inputs:
        act(given)
        begin = time.perf_counter()
        act(given)
        times.append(1000 * (time.perf_counter() - begin))
    sys.stdout.write(f"{name:<32}{np.median(times):7.0f} ms, slowest {max(times):7.0f} ms\n")


def main() -> None:
    """Prints a line for each."""
    with tempfile.TemporaryDirectory() as folder:
        labels = str(Path(folder, "labels"))
        for number in range(PARTS):
            write_part(Results(Storage(labels)), number)
        server = Server(labels)
        try:
            sys.stdout.write(f"{TRACKS} tracks of {VIDEOS} videos: page after {server.start_s:.1f} s\n")
            begin = time.perf_counter()
            while json.loads(server.get("api/state"))["similar_off"]:
                time.sleep(0.2)
            sys.stdout.write(f"embeddings after another {time.perf_counter() - begin:.1f} s, in the background\n")
            rows = server.found()
            for row in rows[:20]:
                server.decide(row)
            before = server.memory_mb()
            slowest("filter, first screen", lambda wanted: server.found(**wanted), FILTERS)
            likes = [{"like": row["row"]} | wanted for row, wanted in zip(rows, FILTERS, strict=False)]
            slowest("more like this, first screen", lambda wanted: server.found(**wanted), likes)
            slowest("a video's tracks", lambda row: server.get("api/video", id=row["video_id"]), rows[:20])
            slowest("a decision, stored", server.decide, rows[20:40])
            slowest("counts by category", lambda _: server.get("api/archive"), range(5))
            for number in range(500):
                server.found(**FILTERS[number % len(FILTERS)])
            after = server.memory_mb()
            sys.stdout.write(f"memory {before:.0f} MB, after a thousand more answers {after:.0f} MB\n")
        finally:
            server.process.terminate()
            server.process.wait()


if __name__ == "__main__":
    main()
