"""Finds the most similar tracks of one part. Imports no torch, so that worker processes start quickly."""

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results, track_embeddings

_COLUMNS = tuple(name for name in SCHEMAS["tracks"].names if name not in ("top", "frames", "unknown", "colour"))


@dataclass(frozen=True, kw_only=True)
class Best:
    """Finds the most similar tracks of a part.

    Attributes:
        results: the labels.
        wanted: embedding of what is looked for, unit norm.
        top: number of tracks to return.
    """

    results: Results
    wanted: Float[np.ndarray, " D"]
    top: int

    def __call__(self, part: str, video_ids: pa.Array | None) -> dict[str, Any]:
        """Returns `hits`, rows of the `tracks` table with their similarity, and `tracks`, the number compared.

        Raises:
            FileNotFoundError: the part no longer exists.
            ValueError: the part is damaged.
        """
        best, tracks = [], 0
        for group in self.results.row_groups("tracks", part, video_ids, _COLUMNS):
            if group.num_rows:
                similarity = track_embeddings(group) @ self.wanted
                chosen = np.argsort(-similarity, kind="stable")[: self.top]
                some = group.drop_columns("embedding").take(chosen).to_pylist()
                best += [row | {"similarity": float(similarity[i])} for row, i in zip(some, chosen, strict=True)]
                tracks += group.num_rows
        return {"hits": heapq.nlargest(self.top, best, key=lambda row: row["similarity"]), "tracks": tracks}
