"""New names for the tracks of a part. Without CLIP, so that the processes that do it start soon."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from openvis_model.vocabulary import VocabularyEmbedding
from pipelines.archive.parts import Rows
from pipelines.archive.tables import SCHEMAS, Results, track_embeddings
from pipelines.storage.files import ELSEWHERE
from pipelines.storage.lease import LEASE

RENEWED = ("vocabulary_fingerprint", "top")
"""Columns of `videos` that are not copied."""

_SCORES = 2**23  # of tracks × categories in memory at a time


@dataclass(frozen=True, kw_only=True)
class Relabel:
    """Writes a part of the output.

    Attributes:
        source: the labels.
        target: the output.
        vocabulary: the new one, in the space of the tracks' embeddings.
        fingerprint: of the vocabulary.
        top: categories listed for a track.
        run: what the names of the parts begin with, later than all that the output has.
    """

    source: Results
    target: Results
    vocabulary: VocabularyEmbedding
    fingerprint: str
    top: int
    run: str

    def __call__(self, part: str, video_ids: pa.Array | None) -> dict[str, int]:
        """Returns the number of its videos and tracks.

        Raises:
            FileNotFoundError: the part is not there.
            ValueError: it is damaged, or the output is a folder that this machine does not see.
            OSError: the output cannot be written to.
        """
        if not self.target.storage.exists(LEASE):
            raise ValueError(f"output: {self.target.storage.root} {ELSEWHERE}")
        rows, sizes = Rows(), dict.fromkeys(SCHEMAS, 0)
        try:
            for table in SCHEMAS:
                for group in self.source.row_groups(table, part, video_ids):
                    sizes[table] += group.num_rows
                    rows.add_table(table, self._renewed(table, group))
            name = hashlib.sha256(part.encode()).hexdigest()[:12]  # a task that is done again replaces its part
            rows.put(self.target.storage, f"{self.run}-{name}")
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
    scores = objectness[:, None] * vocabulary.probabilities(torch.from_numpy(track_embeddings(tracks)))
    best, categories = scores.topk(min(top, len(vocabulary.names)))
    names = pa.array(vocabulary.names, pa.string()).take(pa.array(categories.flatten().numpy()))
    kind = SCHEMAS["tracks"].field("top").type
    pairs = pa.StructArray.from_arrays([names, pa.array(best.flatten().numpy())], fields=list(kind.value_type))
    offsets = pa.array(np.arange(len(best) + 1, dtype=np.int32) * best.shape[1])
    listed = pa.ListArray.from_arrays(offsets, pairs, type=kind)
    first = pa.array(np.arange(len(best)) * best.shape[1])
    columns = {"category": names.take(first), "score": pa.array(best[:, 0].numpy()), "top": listed}
    return _with_columns(tracks, columns)


def _with_columns(rows: pa.Table, columns: dict[str, pa.Array]) -> pa.Table:
    for name, column in columns.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    return rows
