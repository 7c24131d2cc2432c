"""`python -m tests.benchmarks.planning`: what it takes to find out what is to be done in a large archive.

Videos of a manifest, nine tenths of which are labelled already, in parts of a thousand, the last of which the logs do
not list yet: all ids are compared. Memory is the process's peak, less what it takes for ten videos.
"""

import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.archive.compaction import settle
from pipelines.archive.schemas import SCHEMAS, Fingerprints
from pipelines.archive.tables import Results
from pipelines.labelling.run import CHUNK
from pipelines.labelling.worklist import Worklist, undone
from pipelines.storage.files import Storage
from pipelines.storage.lease import hold_lease
from pipelines.video.sources import find_videos

PART = 1000
PRINTS = Fingerprints(model_fingerprint="m" * 64, vocabulary_fingerprint="v" * 64, config_fingerprint="c" * 64, top=5)


def write_archive(folder: Path, videos: int) -> None:
    """A manifest and the output of earlier runs."""
    ids = [f"camera-{i // 1000:04d}-{i:08d}-{i * 2654435761 % 2**48:012x}" for i in range(videos)]
    uris = [f"s3://archive/2026/site {i % 97}/{name}.mp4" for i, name in enumerate(ids)]
    pq.write_table(pa.table({"video_id": ids, "uri": uris}), folder / "manifest.parquet", row_group_size=2**16)
    for table in SCHEMAS:
        (folder / "labels" / table).mkdir(parents=True)
    results = Results(Storage(str(folder / "labels")))
    for start in range(0, videos * 9 // 10, PART):
        if start + PART >= videos * 9 // 10:
            settled(results)
        its = slice(start, min(start + PART, videos * 9 // 10))
        known = {"video_id": ids[its], "uri": uris[its], "status": ["ok"] * len(ids[its])}
        known |= {name: [value] * len(ids[its]) for name, value in vars(PRINTS).items()}
        for table, schema in SCHEMAS.items():
            rows = [dict(zip(known, row, strict=True)) for row in zip(*known.values(), strict=True)]
            content = pa.Table.from_pylist(rows, schema) if table == "videos" else schema.empty_table()
            pq.write_table(
                content, folder / "labels" / table / f"000001-00000000-{start:012x}.parquet", compression="zstd"
            )


def settled(results: Results) -> None:
    """As a run does at its start and its end."""
    with hold_lease(results.storage) as lease:
        settle(results, lease)


def peak_bytes() -> int:
    """Returns the peak memory of this process; `getrusage` would include its parent's at its start."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def plan(folder: Path) -> tuple[int, float, float, int]:
    """Returns how many are to be done, seconds to find and to compare, and peak memory in bytes."""
    start = time.perf_counter()
    found = Worklist(find_videos(str(folder / "manifest.parquet")))
    between = time.perf_counter()
    results = Results(Storage(str(folder / "labels")))
    settled(results)
    todo = Worklist(undone(found, results, PRINTS, retry_failed=False, overwrite=False))
    read = sum(len(chunk) for chunk in todo.chunks(CHUNK))
    end = time.perf_counter()
    return read, between - start, end - between, peak_bytes()


def main() -> None:
    """Prints a line for each size of archive."""
    alone = 0
    for videos in (10, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as name:
            write_archive(Path(name), videos)
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # whose peak is its own
                todo, find_s, compare_s, peak = pool.submit(plan, Path(name)).result()
        if not alone:
            alone = peak
            continue
        per = videos / 100_000
        sys.stdout.write(
            f"{videos:>9} videos, {todo:>7} to do: {find_s / per:.1f} s to find and {compare_s / per:.1f} s to compare "
            f"100,000; {(peak - alone) / 1e6:.0f} MB\n"
        )


if __name__ == "__main__":
    main()
