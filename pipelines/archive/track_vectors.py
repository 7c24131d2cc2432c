"""The embeddings of an archive's tracks, on disk while they are compared."""

import tempfile
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int32

from pipelines.archive.tables import Results, track_embeddings

_NUMBERS = ("track_id", "frames", "first_frame", "last_frame")
_COLUMNS = ("video_id", *_NUMBERS, "embedding", "colour")


class TrackVectors:
    """The tracks of one model: embeddings in a temporary file, some numbers of each in memory.

    Attributes:
        videos: number of each track's video.
        ids: id of each track in its video.
        frames: frames that show it.
        spans: first and last of them.
        colours: mean RGB of each track, 0 to 255; NaN where the labels have none.
        vectors: unit-norm embeddings, mapped from the file.

    The attributes are there after `close`.
    """

    videos: Int32[np.ndarray, " N"]
    ids: Int32[np.ndarray, " N"]
    frames: Int32[np.ndarray, " N"]
    spans: Int32[np.ndarray, "N 2"]
    colours: Float32[np.ndarray, "N 3"]
    vectors: Float32[np.ndarray, "N D"]

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="openvis-embeddings-")  # noqa: SIM115 - open as long as the vectors
        self._width = 0
        self._numbers: list[Int32[np.ndarray, "5 n"]] = []
        self._colours: list[Float32[np.ndarray, "n 3"]] = []

    def add(self, tracks: pa.Table, videos: Int32[np.ndarray, " n"]) -> None:
        """Adds tracks, and the numbers of their videos.

        Raises:
            ValueError: embeddings of one model differ in length.
        """
        if not tracks.num_rows:
            return
        vectors = track_embeddings(tracks)
        if self._width not in (0, vectors.shape[1]):
            widths = f"{self._width} and {vectors.shape[1]}"
            raise ValueError(f"labels: embeddings of one model have {widths} numbers; label the videos again")
        self._width = vectors.shape[1]
        self._file.write(vectors.data)
        numbers = [pc.fill_null(tracks[name], 0).to_numpy() for name in _NUMBERS]
        self._numbers.append(np.stack([videos, *numbers]).astype(np.int32))
        colours = np.full((tracks.num_rows, 3), np.nan, np.float32)
        colours[pc.is_valid(tracks["colour"]).to_numpy()] = pc.list_flatten(tracks["colour"]).to_numpy().reshape(-1, 3)
        self._colours.append(colours)

    def close(self) -> "TrackVectors":
        """Ends adding; returns itself."""
        self._file.flush()
        self.videos, self.ids, self.frames, *spans = np.concatenate(self._numbers, axis=1)
        self.spans = np.stack(spans, axis=1)
        self.colours = np.concatenate(self._colours)
        self.vectors = np.memmap(self._file, np.float32, "r", shape=(len(self.ids), self._width))
        return self


def read_vectors(results: Results) -> tuple[list[str], Sequence[TrackVectors]]:
    """Returns the ids of all videos that have rows, ascending, and the tracks of each model.

    Raises:
        ValueError: a file is damaged, or embeddings of one model differ in length.
    """
    video_ids, of_model = list[str](), defaultdict[str, TrackVectors](TrackVectors)
    wanted = {part: counting for part, counting in results.counting().items() if len(counting)}
    for part, counting in wanted.items():
        videos = pa.concat_tables(results.row_groups("videos", part, counting, ("video_id", "model_fingerprint")))
        its, models = videos["video_id"].combine_chunks(), videos["model_fingerprint"].fill_null("")
        for rows in results.row_groups("tracks", part, counting, _COLUMNS):
            place = pc.index_in(rows["video_id"], its)
            model = models.take(place)
            for name in pc.unique(model).to_pylist():
                chosen = pc.equal(model, name)
                numbers = place.filter(chosen).to_numpy().astype(np.int32) + len(video_ids)
                of_model[name].add(rows.filter(chosen), numbers.astype(np.int32))
        video_ids += its.to_pylist()
    names = pa.array(video_ids, pa.string())
    order = pc.array_sort_indices(names)
    rank = np.empty(len(names), np.int32)
    rank[order.to_numpy()] = np.arange(len(names))
    of_models = [vectors.close() for vectors in of_model.values()]
    for vectors in of_models:
        vectors.videos = rank[vectors.videos]
    return names.take(order).to_pylist(), of_models
