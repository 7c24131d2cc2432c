"""Renames the tracks of one part. Imports no CLIP, so that worker processes start quickly."""

import hashlib
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import torch

from openvis_model.vocabulary import VocabularyEmbedding
from pipelines.archive.parts import Rows
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results, track_embeddings
from pipelines.storage.lease import check_holder
from pipelines.storage.outage import outlast

RENEWED = ("vocabulary_fingerprint", "top")
"""Columns of `videos` that are not copied."""

_SCORES = 2**23  # tracks × names in memory at a time


@dataclass(frozen=True, kw_only=True)
class Relabel:
    """Writes one part of the output.

    Attributes:
        source: the labels.
        target: the output.
        vocabulary: the new vocabulary, embedded by the model that labelled the tracks.
        fingerprint: hash of the vocabulary.
        top: categories listed for a track.
        run: prefix of the new parts' names; sorts after all parts that the output has.
        holder: id of the lease on the output, which must be valid when a part is put in place.
        stall_s: how long the storage of the labels or of the output may be away, seconds.
    """

    source: Results
    target: Results
    vocabulary: VocabularyEmbedding
    fingerprint: str
    top: int
    run: str
    holder: str
    stall_s: float

    def __call__(self, part: str, video_ids: pa.Array | None) -> dict[str, int]:
        """Renames the tracks of a part; returns the number of its videos and tracks.

        Raises:
            FileNotFoundError: the part no longer exists.
            ValueError: the part is damaged, or this machine does not see the output folder.
            OSError: the output cannot be written to.
            RuntimeError: another run took over the output.
        """
        return outlast(partial(self._copy, part, video_ids), self.stall_s)

    def _copy(self, part: str, video_ids: pa.Array | None) -> dict[str, int]:
        check_holder(self.target.storage, self.holder)
        rows, sizes = Rows(), dict.fromkeys(SCHEMAS, 0)
        try:
            for table in SCHEMAS:
                for group in self.source.row_groups(table, part, video_ids):
                    sizes[table] += group.num_rows
                    rows.add_table(table, self._renewed(table, group))
            name = f"{self.run}-{hashlib.sha256(part.encode()).hexdigest()[:12]}"
            check_holder(self.target.storage, self.holder)
            if not self.target.storage.exists(f"videos/{name}.parquet"):  # by this task before: it may be registered
                rows.put(self.target.storage, name)
        finally:
            rows.discard()
        return {"videos": sizes["videos"], "tracks": sizes["tracks"]}

    def _renewed(self, table: str, rows: pa.Table) -> pa.Table:
        if table == "videos":
            columns = {
                "vocabulary_fingerprint": pa.repeat(pa.scalar(self.fingerprint), rows.num_rows),
                "top": pa.repeat(pa.scalar(self.top, pa.int32()), rows.num_rows),
            }
            return _with_columns(rows, columns)
        if table == "tracks":
            size = max(1, _SCORES // self.vocabulary.compared)
            slices = [named(rows.slice(i, size), self.vocabulary, self.top) for i in range(0, rows.num_rows, size)]
            return pa.concat_tables([rows.slice(0, 0), *slices])
        return rows


def named(tracks: pa.Table, vocabulary: VocabularyEmbedding, top: int) -> pa.Table:
    """Returns tracks with the names of a vocabulary; scores are objectness × class probability (Eq. 4).

    Args:
        tracks: rows of the `tracks` table.
        vocabulary: names, embedded by the model that labelled the tracks.
        top: categories listed for a track.
    """
    objectness = torch.tensor(tracks["objectness"].to_numpy())
    embeddings = torch.from_numpy(track_embeddings(tracks))
    scores = objectness[:, None] * vocabulary.probabilities(embeddings)
    best, categories = scores.topk(min(top, len(vocabulary.names)))
    names = pa.array(vocabulary.names, pa.string()).take(pa.array(categories.flatten().numpy()))
    kind = SCHEMAS["tracks"].field("top").type
    pairs = pa.StructArray.from_arrays([names, pa.array(best.flatten().numpy())], fields=list(kind.value_type))
    offsets = pa.array(np.arange(len(best) + 1, dtype=np.int32) * best.shape[1])
    listed = pa.ListArray.from_arrays(offsets, pairs, type=kind)
    first = pa.array(np.arange(len(best)) * best.shape[1])
    columns = {"category": names.take(first), "score": pa.array(best[:, 0].numpy()), "top": listed}
    columns["unknown"] = pa.array(vocabulary.unknown(embeddings).numpy())
    return _with_columns(tracks, columns)


def _with_columns(rows: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    for name, column in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    return rows
