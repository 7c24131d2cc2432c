"""Labelled tracks under new names: scores follow from what `tracks` has, so no video is read."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from openvis_model.text_embedding import embed_vocabulary
from pipelines.archive.compaction import settle
from pipelines.archive.config import RelabelConfig
from pipelines.archive.part_map import map_parts
from pipelines.archive.relabel_part import RENEWED, Relabel
from pipelines.archive.run_report import run_report
from pipelines.archive.tables import SCHEMAS, Results, open_labels
from pipelines.models import load_text_encoder, load_vocabulary, vocabulary_fingerprint
from pipelines.storage.files import Storage
from pipelines.storage.lease import hold_lease

_COPIED = tuple(name for name in SCHEMAS["videos"].names if name not in RENEWED)
_KNOWN = pa.schema([("video_id", pa.string()), ("row_hash", pa.int64()), ("ok", pa.bool_())])


@dataclass(frozen=True, kw_only=True)
class RelabelSummary:
    """What a relabelling did.

    Attributes:
        videos: videos copied now, their tracks renamed.
        tracks: their tracks.
        skipped: videos that the output had already.
        left_out: ids of those that were labelled with another model than the checkpoint's.
        failures: part and reason of those that could not be read or written.
        seconds: duration.
    """

    videos: int
    tracks: int
    skipped: int
    left_out: tuple[str, ...]
    failures: dict[str, str]
    seconds: float


def relabel(config: RelabelConfig, report: Callable[[int, int], None] = lambda done, total: None) -> RelabelSummary:
    """Writes labels anew with the categories of another vocabulary, as labelling with it would have: all three tables.

    Run again after any interruption, or when videos were labelled since, it does the videos that the output lacks.

    Args:
        config: the job.
        report: called with the number of videos that are done, and of those to do.

    Raises:
        ValueError: before anything is written, for labels, output, vocabulary or checkpoint that cannot be used or do
            not go together.
        RuntimeError: the lease on the output was lost, or Ray's processes were.
    """
    start = time.monotonic()
    vocabulary = load_vocabulary(config.vocabulary)
    source, target = open_labels(config.labels), Results(Storage(config.output))
    if source.storage.root.rstrip("/") == target.storage.root.rstrip("/"):
        raise ValueError(f"output: {config.output} is the folder of the labels; choose another")
    encoder, fingerprint = load_text_encoder(config.checkpoint)
    left_out = source.of_other_models(fingerprint)
    target.check_writable()
    embedding = embed_vocabulary(vocabulary, encoder)
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
        todo, skipped = _compare(source, target, left_out)
        videos, tracks, failures = 0, 0, dict[str, str]()
        if todo:
            about = {"config": asdict(config), "vocabulary_fingerprint": work.fingerprint, "wanted": len(todo)}
            with run_report(target.storage, work.run, about) as told:
                for row in map_parts(source, work, tuple(SCHEMAS), todo):
                    lease.check()
                    if row["error"]:
                        failures[row["part"]] = row["error"]
                    else:
                        videos, tracks = videos + row["videos"], tracks + row["tracks"]
                    report(videos, len(todo))
                    told |= {"videos": videos, "tracks": tracks, "failures": failures}
            settle(target, lease)
    return RelabelSummary(
        videos=videos,
        tracks=tracks,
        skipped=skipped,
        left_out=tuple(left_out.to_pylist()),
        failures=failures,
        seconds=time.monotonic() - start,
    )


def _compare(source: Results, target: Results, left_out: pa.Array) -> tuple[pa.Array, int]:
    """Ids of the videos that the output does not have as they are now labelled, and the number of those that it has."""
    found, there = (
        pa.concat_tables([_KNOWN.empty_table(), *results.scan("videos", _COPIED, each=_known)]).combine_chunks()
        for results in (source, target)
    )
    found = found.filter(pc.invert(pc.is_in(found["video_id"], left_out)))
    place = pc.index_in(found["video_id"], there["video_id"].combine_chunks())
    same = pc.equal(there["row_hash"].take(place), found["row_hash"])
    better = pc.and_not(there["ok"].take(place), found["ok"])  # it was tried again there, and succeeded
    todo = found["video_id"].filter(pc.invert(pc.fill_null(pc.or_(same, better), False))).combine_chunks()
    return todo, found.num_rows - len(todo)


def _known(videos: pa.Table) -> pa.Table:
    """Eight bytes of each row, by which one labelling of a video differs from another; of this process alone."""
    rows = zip(*(videos[name].to_pylist() for name in _COPIED), strict=True)
    return pa.table(
        [videos["video_id"], pa.array(map(hash, rows), pa.int64()), pc.equal(videos["status"], "ok")], _KNOWN
    )


def _check_target(target: Results, work: Relabel) -> None:
    for videos in target.scan("videos", RENEWED):
        others = pc.field("vocabulary_fingerprint") != work.fingerprint
        if videos.filter(others | (pc.field("top") != work.top)).num_rows:
            raise ValueError(
                f"output: {target.storage.root} has videos labelled with another vocabulary or top; choose another"
            )
