"""Labelled tracks under new names: scores follow from what `tracks` has, so no video is read."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import VocabularyEmbedding
from openvis_model.weights import fingerprint
from pipelines.compaction import settle
from pipelines.lease import hold_lease
from pipelines.models import load_model, load_vocabulary, vocabulary_fingerprint
from pipelines.part_map import counting_parts, map_parts
from pipelines.parts import Rows
from pipelines.results import SCHEMAS, Results
from pipelines.run_report import run_report
from pipelines.storage import Storage

_SCORES = 2**23  # of tracks × categories in memory at a time


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
        parts: parts of the labels.
        skipped: those that the output had.
        tracks: tracks named now.
        failures: part and reason of those that could not be read or written.
        seconds: duration.
    """

    parts: int
    skipped: int
    tracks: int
    failures: dict[str, str]
    seconds: float


def relabel(config: RelabelConfig, report: Callable[[int, int], None] = lambda done, parts: None) -> RelabelSummary:
    """Writes labels anew with the categories of another vocabulary, as labelling with it would have: all three tables.

    Run again after any interruption, or when videos were labelled since, it does the parts that the output lacks.

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
    parts = counting_parts(source)
    if not parts:
        raise ValueError(f"labels: {config.labels} has no labels; give the output of a labelling run")
    model = load_model(config.checkpoint)
    check_model(source, fingerprint(model))
    target.check_writable()
    work = Relabel(
        source=source,
        target=target,
        vocabulary=embed_vocabulary(vocabulary, model.text_encoder),
        fingerprint=vocabulary_fingerprint(vocabulary),
        top=config.top,
    )
    with hold_lease(target.storage) as lease:
        settle(target, lease)
        _check_target(target, work)
        there = set(target.parts())
        todo = {part: ids for part, ids in parts.items() if part not in there}
        tracks, failures = 0, dict[str, str]()
        if todo:
            about = {"config": asdict(config), "vocabulary_fingerprint": work.fingerprint, "wanted": len(todo)}
            with run_report(target.storage, target.next_run(), about) as told:
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
        parts=len(parts),
        skipped=len(parts) - len(todo),
        tracks=tracks,
        failures=failures,
        seconds=time.monotonic() - start,
    )


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


def _check_target(target: Results, work: "Relabel") -> None:
    for videos in target.scan("videos", ("vocabulary_fingerprint", "top")):
        others = pc.field("vocabulary_fingerprint") != work.fingerprint
        if videos.filter(others | (pc.field("top") != work.top)).num_rows:
            raise ValueError(
                f"output: {target.storage.root} has videos labelled with another vocabulary or top; choose another"
            )


@dataclass(frozen=True, kw_only=True)
class Relabel:
    """Writes a part of the output.

    Attributes:
        source: the labels.
        target: the output.
        vocabulary: the new one, in the space of the tracks' embeddings.
        fingerprint: of the vocabulary.
        top: categories listed for a track.
    """

    source: Results
    target: Results
    vocabulary: VocabularyEmbedding
    fingerprint: str
    top: int

    def __call__(self, part: str, video_ids: pa.Array | None) -> dict[str, int]:
        """Returns the number of its tracks.

        Raises:
            FileNotFoundError: the part is not there.
            ValueError: it is damaged.
            OSError: the output cannot be written to.
        """
        rows, tracks = Rows(), 0
        try:
            for table in SCHEMAS:
                for group in self.source.row_groups(table, part, video_ids):
                    tracks += group.num_rows if table == "tracks" else 0
                    rows.add_table(table, self._renewed(table, group))
            rows.put(self.target.storage, part)
        finally:
            rows.discard()
        return {"tracks": tracks}

    def _renewed(self, table: str, rows: pa.Table) -> pa.Table:
        if table == "videos":
            columns = {
                "vocabulary_fingerprint": pa.repeat(pa.scalar(self.fingerprint), rows.num_rows),
                "top": pa.repeat(pa.scalar(self.top, pa.int32()), rows.num_rows),
            }
            return _with_columns(rows, columns)
        if table == "tracks":
            size = max(1, _SCORES // len(self.vocabulary.names))
            some = [named(rows.slice(i, size), self.vocabulary, self.top) for i in range(0, rows.num_rows, size)]
            return pa.concat_tables([rows.slice(0, 0), *some])
        return rows


def named(tracks: pa.Table, vocabulary: VocabularyEmbedding, top: int) -> pa.Table:
    """Tracks under the names of a vocabulary: scores are objectness × class probability of the embedding (Eq. 4).

    Args:
        tracks: rows of the `tracks` table.
        vocabulary: in the space of their embeddings.
        top: categories listed for a track.
    """
    objectness = torch.tensor(tracks["objectness"].to_numpy())
    scores = objectness[:, None] * vocabulary.probabilities(torch.from_numpy(embeddings(tracks)))
    best, categories = scores.topk(min(top, len(vocabulary.names)))
    names = pa.array(vocabulary.names, pa.string()).take(pa.array(categories.flatten().numpy()))
    kind = SCHEMAS["tracks"].field("top").type
    pairs = pa.StructArray.from_arrays([names, pa.array(best.flatten().numpy())], fields=list(kind.value_type))
    offsets = pa.array(np.arange(len(best) + 1, dtype=np.int32) * best.shape[1])
    listed = pa.ListArray.from_arrays(offsets, pairs, type=kind)
    first = pa.array(np.arange(len(best)) * best.shape[1])
    columns = {"category": names.take(first), "score": pa.array(best[:, 0].numpy()), "top": listed}
    return _with_columns(tracks, columns)


def embeddings(tracks: pa.Table) -> np.ndarray:
    """The embeddings of tracks, float32 [n, D]."""
    flat = tracks["embedding"].combine_chunks().flatten().to_numpy()
    return np.array(flat, np.float32).reshape(tracks.num_rows, -1)


def _with_columns(rows: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    for name, column in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    return rows
