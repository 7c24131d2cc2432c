"""Renames labelled tracks with another vocabulary, from the embeddings in `tracks`; no video is read."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.archive.additions import Additions
from pipelines.archive.compaction import settle
from pipelines.archive.config import RelabelConfig
from pipelines.archive.exemplars import read_tracks
from pipelines.archive.part_map import map_parts
from pipelines.archive.registration import registering
from pipelines.archive.relabel_part import RENEWED, Relabel
from pipelines.archive.reviews import Reviews
from pipelines.archive.run_report import run_report
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results, open_labels
from pipelines.models import embed, load_light_model, load_vocabulary, vocabulary_fingerprint
from pipelines.storage.files import Storage
from pipelines.storage.lease import hold_lease
from pipelines.storage.outage import outlast

_COPIED = tuple(name for name in SCHEMAS["videos"].names if name not in (*RENEWED, "shots"))  # they follow the rest
_KNOWN = pa.schema([("video_id", pa.string()), ("row_hash", pa.int64()), ("ok", pa.bool_())])


@dataclass(frozen=True, kw_only=True)
class RelabelSummary:
    """The result of a relabelling.

    Attributes:
        videos: videos that this run copied under new names.
        tracks: tracks of these videos.
        skipped: videos that the output already had.
        left_out: ids of the videos that were labelled with a model other than the checkpoint's.
        failures: reasons of the parts that could not be read or written, by part.
        seconds: duration.
    """

    videos: int
    tracks: int
    skipped: int
    left_out: tuple[str, ...]
    failures: dict[str, str]
    seconds: float


def relabel(config: RelabelConfig, report: Callable[[int, int], None] = lambda done, total: None) -> RelabelSummary:
    """Writes all three tables as labelling with another vocabulary would have written them.

    A repeated run adds only the videos that the output lacks, whether it was interrupted or videos were labelled since.

    Args:
        config: the job.
        report: called with the number of videos done and the number of videos to do.

    Raises:
        ValueError: labels, output, vocabulary or checkpoint cannot be used or do not fit together; raised before
            anything is written.
        RuntimeError: the lease on the output was lost, or Ray lost its processes.
        OSError: the output was away for longer than `stall_s`.
    """
    start = time.monotonic()
    vocabulary = load_vocabulary(config.vocabulary, config.synonyms)
    source, target = open_labels(config.labels), Results(Storage(config.output))
    if source.storage.root.rstrip("/") == target.storage.root.rstrip("/"):
        raise ValueError(f"output: {config.output} is the folder of the labels; choose another")
    model = load_light_model(config.checkpoint)
    left_out = source.of_other_models(model.fingerprint)
    target.check_writable()
    vocabulary = read_tracks(vocabulary, model.fingerprint, config.labels)
    embedding = embed(vocabulary, model, config.checkpoint)
    with hold_lease(target.storage) as lease:
        settle(target, lease)
        work = Relabel(
            source=source,
            target=target,
            vocabulary=embedding,
            fingerprint=vocabulary_fingerprint(vocabulary),
            top=config.top,
            run=target.next_run(),
            holder=lease.id,
            stall_s=config.stall_s,
        )
        _check_target(target, work)
        todo, skipped = _compare(source, target, left_out)
        if config.reviewed == "only":
            todo = todo.filter(pc.is_in(todo, Reviews(source.storage).read()["video_id"].combine_chunks()))
        if config.reviewed != "ignore":
            Additions(source.storage).copy_to(Additions(target.storage))  # first: it refuses tracks of the same id
            Reviews(source.storage).copy_to(Reviews(target.storage))
        videos, tracks, failures = 0, 0, dict[str, str]()
        if todo:
            facts = {"config": asdict(config), "vocabulary_fingerprint": work.fingerprint, "wanted": len(todo)}
            with run_report(target.storage, work.run, facts) as entries, registering(target, lease):
                for row in map_parts(source, work, tuple(SCHEMAS), todo):
                    lease.check_holder(config.stall_s)
                    if row["error"]:
                        failures[row["part"]] = row["error"]
                    else:
                        videos, tracks = videos + row["videos"], tracks + row["tracks"]
                    report(videos, len(todo))
                    entries |= {"videos": videos, "tracks": tracks, "failures": failures}
            outlast(partial(settle, target, lease), config.stall_s)
    return RelabelSummary(
        videos=videos,
        tracks=tracks,
        skipped=skipped,
        left_out=tuple(left_out.to_pylist()),
        failures=failures,
        seconds=time.monotonic() - start,
    )


def _compare(source: Results, target: Results, left_out: pa.Array) -> tuple[pa.Array, int]:
    """Returns the ids of videos whose current labels the output lacks, and the number of videos that it has."""
    labelled, copied = (
        pa.concat_tables([_KNOWN.empty_table(), *results.scan("videos", _COPIED, each=_known)]).combine_chunks()
        for results in (source, target)
    )
    labelled = labelled.filter(pc.invert(pc.is_in(labelled["video_id"], left_out)))
    index = pc.index_in(labelled["video_id"], copied["video_id"].combine_chunks())
    same = pc.equal(copied["row_hash"].take(index), labelled["row_hash"])
    better = pc.and_not(copied["ok"].take(index), labelled["ok"])  # the output has an attempt that succeeded
    todo = labelled["video_id"].filter(pc.invert(pc.fill_null(pc.or_(same, better), False))).combine_chunks()
    return todo, labelled.num_rows - len(todo)


def _known(videos: pa.Table) -> pa.Table:
    """Returns a hash of each row that tells two labellings of a video apart; comparable within this process only."""
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
