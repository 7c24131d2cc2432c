"""Opens a page on which people see, search and judge the tracks of labelled videos.

python -m jobs.review --labels labels/

It prints the page's URL, which has a token, and serves it until it is interrupted. What is decided is stored at once in
the labels' table `reviews`; any number of people may review at a time. With `--report` or `--snapshot`, it writes that
and ends. The exit code is 0 after an interruption or when all is written, 1 if it failed or a video has no pictures for
the snapshot, 2 for bad input.
"""

import errno
import os
import socket
import sys

from jobs.command import check_present, run_job, start
from jobs.options import read_config
from jobs.progress import ProgressCount
from jobs.recipes import ReviewOptions, with_checkpoint
from pipelines.review.config import ReviewConfig


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("review", lambda: _review(arguments), interrupted="all decisions are stored")


def _review(arguments: list[str] | None) -> int:
    options = read_config("review", __doc__, ReviewOptions, arguments)
    for name in ("labels", "checkpoint"):
        check_present(name, getattr(options, name))
    config = with_checkpoint(options)
    if config.report is not None:
        return _report(config, config.report)
    if config.snapshot is not None:
        return _snapshot(config, config.snapshot)
    listener = _listen(config)  # before the archive is read, which may take seconds
    with listener:
        from aiohttp import web

        from pipelines.review.server import Server
        from pipelines.review.session import Review

        review = Review(config)
        if review.read_only:
            print(f"review: decisions cannot be stored: {review.read_only}", file=sys.stderr)
        server = Server(review)
        host, port = listener.getsockname()[:2]
        summary = review.catalogue.summary()
        print(f"{summary['tracks']} tracks of {summary['videos']} videos")
        print(f"review: http://{f'[{host}]' if ':' in host else host}:{port}/?token={server.token}", flush=True)
        web.run_app(server.app(), sock=listener, print=None, access_log=None, shutdown_timeout=1.0)
    os._exit(0)  # all is stored; an orderly end would wait for the model of the search, and print what DuckDB leaks


def _report(config: ReviewConfig, output: str) -> int:
    from pipelines.review.report import report, write_report
    from pipelines.review.session import Review
    from pipelines.storage.files import check_output

    check_output("report", output, ".json")
    review = Review(config)
    review.search.embeddings.load()
    if review.search.embeddings.error:
        raise ValueError(f"labels: {review.search.embeddings.error}")
    found = report(review)
    print(f"{'precision':>9}  {'95 %':>15}  {'judged':>8}  {'tracks':>8}  category")
    for row in found.categories:
        share, ends = (f"{row.precision:.2f}", f"{row.low:.2f} to {row.high:.2f}") if row.judged else ("–", "")
        print(f"{share:>9}  {ends:>15}  {row.judged:>8}  {row.tracks:>8}  {row.category}")
    print("look at next:")
    for each in found.suggestions:
        print(f"  {each.reason}: {each.category} ({each.score:.2f}), track {each.track_id} of {each.video_id}")
    write_report(found, output)
    return 0


def _snapshot(config: ReviewConfig, output: str) -> int:
    from pipelines.review.session import Review
    from pipelines.review.snapshot import write_snapshot

    review = Review(config)
    review.search.embeddings.load()
    summary = write_snapshot(review, output, ProgressCount("videos"))
    size = f"{summary.size / 1e6:.1f} MB"
    print(f"{summary.tracks} tracks of {summary.videos} videos, {size} → {output}")
    for video, reason in summary.failures.items():
        print(f"review: no pictures: {video}: {reason}", file=sys.stderr)
    return 1 if summary.failures else 0


def _listen(config: ReviewConfig) -> socket.socket:
    """Returns a socket that listens.

    Raises:
        ValueError: the address or the port cannot be used; says why.
    """
    try:
        return socket.create_server((config.host, config.port), family=_family(config.host))
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise ValueError(
                f"port: cannot listen on {config.port} ({reason}); choose another, or 0 for any"
            ) from error
        raise ValueError(f"host: cannot listen on {config.host} ({reason}); give an address of this machine") from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


if __name__ == "__main__":
    start(main)
