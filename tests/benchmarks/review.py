"""`python -m tests.benchmarks.review`: the server of the review page on a million tracks of 10,000 videos, D = 512.

How long it takes to open the page, to filter and to search by text and by a track, the slowest of several of each, the
server's CPU time, and its memory before and after thousands of answers; the model is the paper's, with random weights.
Videos are not there; of pictures, only what tables are read for is measured.
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

from openvis_model.config import paper
from openvis_model.inst_former import InstFormer
from openvis_model.weights.checkpoint import save_checkpoint
from pipelines.archive.parts import Rows
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage

TEXTS = tuple(f"{colour} {thing}" for colour in ("red", "blue") for thing in ("dog", "car", "kite", "boat"))
ANSWERS = 4000  # between the two measurements of memory
REPEATS = 3
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


def write_part(results: Results, number: int, model: str, videos: int = VIDEOS // PARTS) -> None:
    """A part of videos with a hundred tracks each, seen in a frame each; random embeddings."""
    rng = np.random.default_rng(number)
    ids = [f"camera-{number:04d}-{i:06d}" for i in range(videos)]
    rows, tracks = Rows(), videos * EACH
    about = {"status": "ok", "fps": 25.0, "width": 1920, "height": 1080, "duration_s": 60.0}
    prints = dict.fromkeys(("vocabulary_fingerprint", "config_fingerprint"), "x") | {"model_fingerprint": model}
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

    def __init__(self, labels: str, checkpoint: str) -> None:
        begin = time.perf_counter()
        command = [sys.executable, "-m", "jobs.review", "--labels", labels, "--checkpoint", checkpoint]
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

    def cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def memory_mb(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss / 1e6)


def slowest(server: Server, name: str, act: Any, inputs: Any) -> None:
    """Prints median and slowest, milliseconds, and CPU time, of calls after a first one for each input."""
    times, cpu_s = [], 0.0
    for given in inputs:
        act(given)
        before = server.cpu_s()
        for _ in range(REPEATS):
            begin = time.perf_counter()
            act(given)
            times.append(1000 * (time.perf_counter() - begin))
        cpu_s += server.cpu_s() - before
    print_row(name, times, cpu_s)


def print_row(name: str, times: list[float], cpu_s: float) -> None:
    print(
        f"{name:<32}{np.median(times):7.0f} ms, slowest {max(times):5.0f} ms, CPU {1000 * cpu_s / len(times):5.0f} ms"
    )


def first_texts(server: Server) -> None:
    """Texts that nobody asked for before: the text tower reads them."""
    times, before = [], server.cpu_s()
    for text in TEXTS:
        begin = time.perf_counter()
        server.found(text=text)
        times.append(1000 * (time.perf_counter() - begin))
    print_row("a new text, first screen", times, server.cpu_s() - before)


def measure(server: Server) -> None:
    """Prints a line for each."""
    print(f"{TRACKS} tracks of {VIDEOS} videos: page after {server.start_s:.1f} s, CPU {server.cpu_s():.1f} s")
    begin = time.perf_counter()
    while json.loads(server.get("api/state"))["search_off"]:
        time.sleep(0.2)
    print(f"search after another {time.perf_counter() - begin:.1f} s, in the background; CPU {server.cpu_s():.1f} s")
    rows = server.found()
    for row in rows[:20]:
        server.decide(row)
    server.found(text="a thing")  # the first use of the text tower
    slowest(server, "filter, first screen", lambda wanted: server.found(**wanted), FILTERS)
    first_texts(server)
    texts = [{"text": text} | wanted for text, wanted in zip(TEXTS, FILTERS, strict=False)]
    slowest(server, "a text again, first screen", lambda wanted: server.found(**wanted), texts)
    likes = [{"like": row["row"]} | wanted for row, wanted in zip(rows, FILTERS, strict=False)]
    slowest(server, "more like this, first screen", lambda wanted: server.found(**wanted), likes)
    slowest(server, "a video's tracks", lambda row: server.get("api/video", id=row["video_id"]), rows[:20])
    slowest(server, "a decision, stored", server.decide, rows[20:40])
    slowest(server, "counts by category", lambda _: server.get("api/archive"), range(5))
    before = server.memory_mb()
    for number in range(ANSWERS // 4):
        server.found(**FILTERS[number % len(FILTERS)])
        server.found(**likes[number % len(likes)])
    print(f"memory {before:.0f} MB, after {ANSWERS} more answers {server.memory_mb():.0f} MB")


def main() -> None:
    """Makes an archive and a model, and measures."""
    with tempfile.TemporaryDirectory() as folder:
        labels, checkpoint = str(Path(folder, "labels")), Path(folder, "checkpoint")
        save_checkpoint(InstFormer(paper()), checkpoint)
        model = json.loads((checkpoint / "config.json").read_text())["fingerprint"]
        for number in range(PARTS):
            write_part(Results(Storage(labels)), number, model)
        server = Server(labels, str(checkpoint))
        try:
            measure(server)
        finally:
            server.process.terminate()
            server.process.wait()


if __name__ == "__main__":
    main()
