"""`python -m tests.benchmarks.registration`: what the Delta Lake logs of an archive of many parts cost.

Registering all parts at once, as a compaction does with an output that has no logs yet; one more part, as a labelling
run does once a minute; and finding the parts by listing the folders, as our readers do, or by the log, as others do.
Every figure is CPU time of this process, the best of several.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from deltalake import DeltaTable

from pipelines.archive.compaction import settle
from pipelines.archive.delta_log import TableLog
from pipelines.archive.registration import Registration
from pipelines.archive.schemas import ORDER
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from pipelines.storage.lease import hold_lease
from tests.pipelines.archive.labels import part_name, put_part

PARTS, VIDEOS = 1000, 20
MORE = 20


def cpu_s(work: Callable[[], object], times: int = 1) -> float:
    """The least CPU time that the work took."""
    best = float("inf")
    for _ in range(times):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return best


def write(results: Results, number: int) -> None:
    put_part(results, part_name(1, number), *(f"camera-{number:04d}-{i:06d}" for i in range(VIDEOS)))


def main() -> None:
    """Prints a line for each."""
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Storage(folder))
        for number in range(PARTS):
            write(results, number)
        with hold_lease(results.storage) as lease:
            counting = cpu_s(results.counting)
            first = cpu_s(lambda: settle(results, lease))
            again = cpu_s(lambda: settle(results, lease), 3)
            registration, more = Registration(results, lease), list[float]()
            registration.add()
            for number in range(PARTS, PARTS + MORE):
                write(results, number)
                more.append(cpu_s(registration.add))
        log = sum(file.stat().st_size for file in Path(folder, "videos/_delta_log").iterdir())
        by_list = cpu_s(results.parts, 5)
        by_log = cpu_s(lambda: TableLog(results.storage, ORDER[-1]), 5)
        by_delta = cpu_s(lambda: DeltaTable(f"{folder}/videos").file_uris(), 5)
    sys.stdout.write(
        f"{PARTS} parts of {VIDEOS} videos; CPU time\n"
        f"  reading their ids                    {counting:6.2f} s\n"
        f"  registering all                      {first:6.2f} s, a log of {log / 1e3:.0f} kB per table\n"
        f"  settling when nothing is new         {again:6.2f} s\n"
        f"  registering one more                 {min(more):6.2f} s\n"
        f"  finding the parts: three listings    {by_list:6.3f} s\n"
        f"    from the log, by our code          {by_log:6.3f} s\n"
        f"    from the log, by deltalake alone   {by_delta:6.3f} s\n"
    )


if __name__ == "__main__":
    main()
