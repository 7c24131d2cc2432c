"""Writes what a labelling run found as annotations of other tools.

python -m jobs.export --labels labels/ --output review/ --format cvat --min_score 0.3

`youtube_vis` and `coco` are one file, annotations.json, with masks; `cvat` is an XML of CVAT for video 1.1 per video,
with boxes, to be reviewed there. The exit code is 0, 1 if it broke off, 2 for bad input.
"""

from jobs.command import check_present, run_job, start
from jobs.options import read_config
from jobs.progress import ProgressCount
from pipelines.archive.config import ExportConfig


def main(arguments: list[str] | None = None) -> int:
    """Runs the job; returns the exit code."""
    return run_job("export", lambda: _export(arguments), interrupted="run it again")


def _export(arguments: list[str] | None) -> int:
    config = read_config("export", __doc__, ExportConfig, arguments)
    check_present("labels", config.labels)

    from pipelines.archive.export import export_annotations

    summary = export_annotations(config, ProgressCount("videos"))
    print(f"{summary.tracks} tracks of {summary.videos} videos → {config.output}")
    return 0


if __name__ == "__main__":
    start(main)
