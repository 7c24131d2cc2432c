"""`python -m tests.benchmarks.snapshot`: what a browser reads of a snapshot of 100,000 tracks of 1,000 videos, D = 512.

For the first screen, and for each filter after it, in a page of its own: requests for tables and bytes, and the time
until the first 60 tracks are known. Videos are not there, so that there are no pictures.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from pipelines.archive.tables import Results
from pipelines.review.config import ReviewConfig
from pipelines.review.session import Review
from pipelines.review.snapshot import write_snapshot
from pipelines.storage.files import Storage
from tests.benchmarks.review import write_part
from tests.pipelines.review.browser import browser
from tests.pipelines.review.static_host import StaticHost, hosted

PARTS, VIDEOS = 2, 500
FILTERS: tuple[dict[str, Any], ...] = (
    {"min_score": 0.3, "max_score": 0.4},
    {"order": "score"},
    {"order": "-length"},
    {"category": "category 7"},
    {"decision": "undecided", "name": "0001-00001"},
    {"like": 5},
)
ASK = """async (wanted) => {
    const { ask } = await import("./api.js");
    const begin = performance.now();
    const { found, total } = await ask("find", wanted);
    await ask("rows", { found, offset: 0, limit: 60 });
    return [total, performance.now() - begin];
}"""


def read(host: StaticHost) -> str:
    """What was read of tables since the last call."""
    tables = [size for path, size in host.asked if path.endswith((".parquet", ".bin"))]
    host.asked.clear()
    return f"{len(tables):3} requests, {sum(tables) / 1000:8.0f} kB"


def main() -> None:
    """Prints a line for each."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(PARTS):
            write_part(Results(Storage(f"{folder}/labels")), number, "model", VIDEOS)
        review = Review(ReviewConfig(labels=f"{folder}/labels"))
        review.embeddings.load()
        begin = time.perf_counter()
        summary = write_snapshot(review, f"{folder}/snapshot")
        print(f"{summary.tracks} tracks: {summary.size / 1e6:.1f} MB in {time.perf_counter() - begin:.0f} s")
        for file in sorted(Path(folder, "snapshot").glob("data-*/*.*")):
            print(f"  {file.name:<16}{file.stat().st_size / 1000:8.0f} kB")
        with hosted(Path(folder, "snapshot")) as host, browser() as chromium:
            for wanted in FILTERS:
                page = chromium.new_page()
                page.goto(host.url)
                page.wait_for_selector(".card .name")
                first = read(host)
                total, took = page.evaluate(ASK, wanted)
                print(f"{wanted!s:<44}{total:7} {took:5.0f} ms {read(host)}")
                page.close()
            print(f"first screen: {first}")


if __name__ == "__main__":
    main()
