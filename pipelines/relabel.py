"""Labelled tracks under new names: scores follow from what `tracks` has, so no video is read."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from openvis_model.text_embedding import embed_vocabulary
from openvis_model.weights import fingerprint
from pipelines.compaction import settle
from pipelines.lease import hold_lease
from pipelines.models import load_model, load_vocabulary, vocabulary_fingerprint
from pipelines.part_map import map_parts
from pipelines.part_relabel import Relabel
from pipelines.results import Results
from pipelines.run_report import run_report
from pipelines.storage import Storage

_LABELLING = ("video_id", "status", "config_fingerprint", "model_s", "tracker_s")
"""Columns that are copied, by which one labelling of a video differs from another: its times are never the same."""

_READERS = 16  # files at a time


@dataclass(frozen=True, kw_only=True)
class RelabelConfig:
    """A relabelling.

    Attributes:
        labels: output of a labelling run, local or s3://.
        output: folder of the new tables, local or s3://.
        vocabulary: text file of the new names, one category per line, synonyms separated by commas; local or s3://.
        checkpoint: the one that the videos were labelled with, local or s3://; the built-in model if none is given.
        top: categories listed for a track, the best one included.
    """

    labels: str
    output: str
    vocabulary: str
    checkpoint: str | None = None
    top: int = 5

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top: expected at least 1, got {self.top}")


@dataclass(frozen=True, kw_only=True)
class RelabelSummary:
    """What a relabelling did.

    Attributes:
        videos: videos of the labels.
        skipped: those that the output had.
        tracks: tracks named now.
        failures: part and reason of those that could not be read or written.
        seconds: duration.
    """

    videos: int
    skipped: int
    tracks: int
    failures: dict[str, str]
    seconds: float


def relabel(config: RelabelConfig, report: Callable[[int, int], None] = lambda done, parts: None) -> RelabelSummary:
    """Writes labels anew with the categories of another vocabulary, as labelling with it would have: all three tables.

    Run again after any interruption, or when videos were labelled since, it does the videos that the output lacks.

    Args:
        config: the job.
        report: called with the number of parts that are done, and of those to do.

    Raises:
        ValueError: before anything is written, for labels, output, vocabulary or checkpoint that cannot be used or do
            not go together.
        RuntimeError: the lease on the output was lost.
    """
    start = time.monotonic()
    vocabulary = load_vocabulary(config.vocabulary)
    source, target = Results(Storage(config.labels)), Results(Storage(config.output))
    if source.storage.root.rstrip("/") == target.storage.root.rstrip("/"):
        raise ValueError(f"output: {config.output} is the folder of the labels; choose another")
    videos = sum(map(len, source.counting().values()))
    if not videos:
        raise ValueError(f"labels: {config.labels} has no labels; give the output of a labelling run")
    model = load_model(config.checkpoint)
    check_model(source, fingerprint(model))
    target.check_writable()
    embedding = embed_vocabulary(vocabulary, model.text_encoder)
    with hold_lease(target.storage) as lease:
        settle(target, lease)
        work = Relabel(
            source=source,
            target=target,
            vocabulary=embedding,
            fingerprint=vocabulary_fingerprint(vocabulary),
            top=config.top,
            run=target.next_run(),
        )
        _check_target(target, work)
        todo = _todo(source, target)
        tracks, failures = 0, dict[str, str]()
        if todo:
            about = {"config": asdict(config), "vocabulary_fingerprint": work.fingerprint, "videos": videos}
            with run_report(target.storage, work.run, about) as told:
                for done, row in enumerate(map_parts(todo, work), start=1):
                    lease.check()
                    if row["error"]:
                        failures[row["part"]] = row["error"]
                    else:
                        tracks += row["tracks"]
                    report(done, len(todo))
                    told |= {"parts": done, "tracks": tracks, "failures": failures}
            settle(target, lease)
    return RelabelSummary(
        videos=videos,
        skipped=videos - sum(map(len, todo.values())),
        tracks=tracks,
        failures=failures,
        seconds=time.monotonic() - start,
    )


def _todo(source: Results, target: Results) -> dict[str, list[str]]:
    """Parts of the labels, and ids of those of their videos that the output does not have as they are now labelled."""
    done = {key for rows in target.scan("videos", _LABELLING) for key in zip(*rows.to_pydict().values(), strict=True)}

    def lacking(part: str, ids: pa.Array) -> list[str]:
        groups = source.row_groups("videos", part, ids, _LABELLING)
        keys = (key for rows in groups for key in zip(*rows.to_pydict().values(), strict=True))
        return [key[0] for key in keys if key not in done]

    counting = source.counting()
    with ThreadPoolExecutor(_READERS) as pool:
        found = zip(counting, pool.map(lacking, counting, counting.values()), strict=True)
        return {part: ids for part, ids in found if ids}


def check_model(results: Results, model_fingerprint: str) -> None:
    """Whether all videos were labelled with a model, so that their embeddings are in its space.

    Raises:
        ValueError: some were not.
    """
    for videos in results.scan("videos", ("video_id", "status", "model_fingerprint")):
        others = videos.filter((pc.field("status") == "ok") & (pc.field("model_fingerprint") != model_fingerprint))
        if others.num_rows:
            raise ValueError(
                f"checkpoint: video {others['video_id'][0]} in {results.storage.root} was labelled with another model; "
                "give the checkpoint that it was labelled with"
            )


def _check_target(target: Results, work: Relabel) -> None:
    for videos in target.scan("videos", ("vocabulary_fingerprint", "top")):
        others = pc.field("vocabulary_fingerprint") != work.fingerprint
        if videos.filter(others | (pc.field("top") != work.top)).num_rows:
            raise ValueError(
                f"output: {target.storage.root} has videos labelled with another vocabulary or top; choose another"
            )
