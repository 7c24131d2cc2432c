"""Embeddings of all tracks in memory, a byte per number, and the tracks that are most similar to one of them."""

import threading
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int8, Int16, Int32

from pipelines.archive.tables import track_embeddings
from pipelines.datasets.compiled import kernel
from pipelines.review.catalogue import Catalogue

_STEPS = 2047  # of a number that is looked for; a sum of 2 ** 13 products still fits into 32 bits


class Embeddings:
    """The embeddings of a catalogue's tracks, in the order of its rows.

    Numbers are rounded to 127 steps of the largest of their track, so that a cosine is wrong by some thousandths.

    Args:
        catalogue: the tracks.
        before: those of an earlier catalogue; what is the same is not read again.

    Attributes:
        loaded: number of tracks read so far.
        error: why reading broke off; None if it did not.
    """

    def __init__(self, catalogue: Catalogue, before: "Embeddings | None" = None) -> None:
        self.catalogue = catalogue
        self._before = before
        self.loaded = 0
        self.error: str | None = None
        self._models = np.zeros(catalogue.size, np.int32)  # number of each track's model
        self._numbers: dict[str, int] = {}  # of models
        self._codes: Int8[np.ndarray, "n D"] = np.zeros((catalogue.size, 0), np.int8)
        self._scales = np.zeros(catalogue.size, np.float32)
        self.ready = threading.Event()
        self._loading = threading.Lock()

    def load(self) -> None:
        """Reads all embeddings, unless they are read already; takes a second for a hundred thousand or so."""
        with self._loading:
            if not self.ready.is_set():
                self._load()

    def _load(self) -> None:
        before, self._before = self._before, None
        try:
            if before and before._is_whole() and before.catalogue.numbering == self.catalogue.numbering:
                self._take(before)
            else:
                self._read()
            if self.catalogue.added.num_rows:
                self._add(self.catalogue.added, self.catalogue.added)
        except (ValueError, OSError) as error:
            self.error = str(error)
        self.ready.set()

    def _read(self) -> None:
        """Reads the embeddings of all labelled tracks."""
        results = self.catalogue.results
        for part, ids in self.catalogue.parts.items():
            only = self.catalogue.only(part, ids)
            models = pa.concat_tables(results.row_groups("videos", part, only, ("video_id", "model_fingerprint")))
            for tracks in results.row_groups("tracks", part, only, ("video_id", "embedding")):
                if tracks.num_rows:
                    self._add(tracks, models)

    def _take(self, before: "Embeddings") -> None:
        """Takes over the embeddings of all labelled tracks."""
        count = self.catalogue.size - self.catalogue.added.num_rows
        self._codes = np.zeros((self.catalogue.size, before._codes.shape[1]), np.int8)
        self._codes[:count] = before._codes[:count]
        self._scales[:count], self._models[:count] = before._scales[:count], before._models[:count]
        self._numbers = dict(before._numbers)
        self.loaded = count

    def _is_whole(self) -> bool:
        return self.ready.is_set() and self.error is None

    def of(self, row: int) -> Float32[np.ndarray, " D"]:
        """Returns the embedding of a track."""
        vector: Float32[np.ndarray, " D"] = self._codes[row].astype(np.float32) * self._scales[row]
        return vector

    def codes(
        self, rows: Int32[np.ndarray, " n"]
    ) -> tuple[Int8[np.ndarray, "n D"], Float32[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
        """Returns the embeddings of some tracks in steps, the size of these, and the numbers of their models."""
        return self._codes[rows], self._scales[rows], self._models[rows]

    def model_of(self, row: int) -> str | None:
        """Returns the fingerprint of the model that a track was labelled with."""
        return next((name for name, number in self._numbers.items() if number == self._models[row]), None)

    def nearest(
        self, vector: Float32[np.ndarray, " D"], rows: Int32[np.ndarray, " n"], top: int, model: str | None
    ) -> tuple[Int32[np.ndarray, " k"], Float32[np.ndarray, " k"]]:
        """Returns the most similar of some tracks, best first, and their cosines; tracks of other models are left out.

        Args:
            vector: an embedding, unit norm.
            rows: the tracks to compare it with, fastest if they ascend.
            top: number of tracks to return.
            model: fingerprint of the model that the embedding is of.
        """
        rows = rows[self._models[rows] == self._numbers.get(model or "", -1)]
        if not len(rows) or vector.shape != self._codes.shape[1:]:
            return rows[:0], np.zeros(0, np.float32)
        scale = max(float(np.abs(vector).max()), 1e-12) / _STEPS
        codes = np.rint(vector / scale).astype(np.int16)
        cosines = _products(self._codes, rows, codes) * (self._scales[rows] * np.float32(scale))
        best = np.argpartition(-cosines, min(top, len(rows)) - 1)[:top]
        best = best[np.lexsort((rows[best], -cosines[best]))]
        return rows[best], cosines[best]

    def _add(self, tracks: pa.Table, videos: pa.Table) -> None:
        vectors, start = track_embeddings(tracks), self.loaded
        if self._codes.shape[1] == 0:
            self._codes = np.zeros((self.catalogue.size, vectors.shape[1]), np.int8)
        if vectors.shape[1] != self._codes.shape[1]:  # of another CLIP
            vectors = np.zeros((len(vectors), self._codes.shape[1]), np.float32)
        scales = np.abs(vectors).max(1, initial=0) / 127
        stop = start + len(vectors)
        self._scales[start:stop] = scales
        self._codes[start:stop] = np.rint(vectors / np.where(scales > 0, scales, 1)[:, None])
        names = videos["model_fingerprint"].take(pc.index_in(tracks["video_id"], videos["video_id"].combine_chunks()))
        self._models[start:stop] = self._numbered(names.fill_null("").to_pylist())
        self.loaded = stop

    def _numbered(self, models: Sequence[str]) -> list[int]:
        return [self._numbers.setdefault(name, len(self._numbers)) for name in models]


@kernel
def _products(
    codes: Int8[np.ndarray, "n D"], rows: Int32[np.ndarray, " m"], vector: Int16[np.ndarray, " D"]
) -> Int32[np.ndarray, " m"]:
    """Returns the products of some rows with a vector: of whole numbers, which compilers may add in any order."""
    products = np.empty(len(rows), np.int32)
    for at in range(len(rows)):
        row = codes[rows[at]]
        total = np.int32(0)
        for i in range(len(vector)):
            total += np.int32(row[i]) * np.int32(vector[i])
        products[at] = total
    return products
