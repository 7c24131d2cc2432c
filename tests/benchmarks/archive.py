"""`python -m tests.benchmarks.archive`: free text over, new names for, and duplicates among, a million tracks of 512.

Beside what each takes: how long one process takes to read the same columns, and nothing else.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import torch
import torch.nn.functional as F

from openvis_model.vocabulary import VocabularyEmbedding
from pipelines.archive.config import DuplicatesConfig
from pipelines.archive.duplicates import find_duplicates
from pipelines.archive.part_map import map_parts
from pipelines.archive.parts import Rows
from pipelines.archive.relabel_part import Relabel
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.search_part import Best
from pipelines.archive.tables import Results
from pipelines.cluster.connection import connect
from pipelines.storage.files import Storage
from pipelines.storage.lease import hold_lease

TRACKS, PART, D, NAMES = 1_000_000, 62_500, 512, 1196  # parts of 128 MB; names of LV-VIS
VIDEO = 10  # tracks of each


def write_part(results: Results, number: int) -> None:
    """Random embeddings, which Parquet cannot make smaller."""
    vectors = np.random.default_rng(number).normal(size=(PART, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"camera-{number:04d}-{i:06d}" for i in range(PART // VIDEO)]
    rows = Rows()
    rows.add("videos", [dict.fromkeys(SCHEMAS["videos"].names) | {"video_id": i, "status": "ok"} for i in ids])
    ones = np.ones(PART, np.float32)
    columns = {
        "video_id": pa.array(np.repeat(ids, VIDEO)),
        "track_id": pa.array(np.tile(np.arange(VIDEO, dtype=np.int32), len(ids))),
        "objectness": pa.array(ones),
        "embedding": pa.ListArray.from_arrays(np.arange(PART + 1, dtype=np.int32) * D, vectors.ravel()),
    }
    schema = SCHEMAS["tracks"]
    missing = {field.name: pa.nulls(PART, field.type) for field in schema if field.name not in columns}
    table = pa.table(columns | missing).select(schema.names).cast(schema)
    for start in range(0, PART, 8192):
        rows.add_table("tracks", table.slice(start, 8192))
    rows.put(results.storage, f"000001-00000000-{number:012x}")


def main() -> None:
    """Prints a line for each."""
    with tempfile.TemporaryDirectory() as folder:
        results, target = Results(Storage(f"{folder}/labels")), Results(Storage(f"{folder}/new"))
        for number in range(TRACKS // PART):
            write_part(results, number)
        connect(2)
        list(
            map_parts(results, lambda part, ids: {}, tuple(SCHEMAS))
        )  # its processes are there, and what counts is known
        begin = time.perf_counter()
        for part in results.parts():
            for _ in results.row_groups("tracks", part, columns=("video_id", "track_id", "embedding")):
                pass
        reading = time.perf_counter() - begin
        sys.stdout.write(f"reading {TRACKS} embeddings of {D}, one process: {reading:.1f} s\n")

        text = F.normalize(torch.randn(NAMES, D), dim=1)
        vocabulary = VocabularyEmbedding(tuple(map(str, range(NAMES))), text, 100.0)
        best = Best(results=results, wanted=text[0].numpy(), top=10)

        def relabel(holder: str) -> Relabel:
            return Relabel(
                source=results,
                target=target,
                vocabulary=vocabulary,
                fingerprint="v",
                top=5,
                run="000001-00000000",
                holder=holder,
                stall_s=60.0,
            )

        for name, work in (("search", lambda holder: best), (f"relabel to {NAMES} names", relabel)):
            begin = time.perf_counter()
            with hold_lease(target.storage) as lease:
                rows = list(map_parts(results, work(lease.id), tuple(SCHEMAS)))
            seconds = time.perf_counter() - begin
            assert sum(row["tracks"] for row in rows) == TRACKS
            sys.stdout.write(f"{name}, two processes: {seconds:.1f} s, {seconds / reading:.2f} × reading\n")
        ray.shutdown()
        begin = time.perf_counter()
        found = find_duplicates(DuplicatesConfig(labels=results.storage.root))
        assert (found.tracks, found.track_pairs) == (TRACKS, 0)
        (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("RssAnon:"))
        held = int(line.split()[1]) / 1024
        sys.stdout.write(
            f"duplicates, one process: {time.perf_counter() - begin:.0f} s, {held:.0f} MB held at its end\n"
        )


if __name__ == "__main__":
    main()
