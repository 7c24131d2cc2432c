from pathlib import Path

import numpy as np
import pytest

from pipelines.archive.tables import Results
from pipelines.archive.track_vectors import read_vectors
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name, put_tracks


def test_tracks_of_each_model(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    first = {"video_id": "a", "track_id": 4, "frames": 3, "first_frame": 2, "last_frame": 9, "embedding": [0.6, 0.8]}
    put_tracks(results, part_name(1), "m", first, {"video_id": "b", "track_id": 0, "embedding": [1.0, 0.0]})
    put_tracks(results, part_name(2), "other", {"video_id": "c", "track_id": 1, "embedding": [1.0, 0.0, 0.0]})
    put_tracks(results, part_name(3), "m", {"video_id": "b", "track_id": 7, "embedding": [0.0, 1.0]})  # labelled again
    names, (ours, others) = read_vectors(results)
    assert [names[video] for video in ours.videos] == ["a", "b"]
    assert (ours.ids.tolist(), ours.frames.tolist(), ours.spans.tolist()) == ([4, 7], [3, 0], [[2, 9], [0, 0]])
    assert np.allclose(ours.vectors, [[0.6, 0.8], [0.0, 1.0]])
    assert (names[others.videos[0]], others.vectors.shape) == ("c", (1, 3))


def test_embeddings_of_two_lengths_are_told(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    put_tracks(results, part_name(1), "m", {"video_id": "a", "track_id": 0, "embedding": [0.6, 0.8]})
    put_tracks(results, part_name(2), "m", {"video_id": "b", "track_id": 0, "embedding": [0.6, 0.8, 0.0]})
    with pytest.raises(ValueError, match="embeddings of one model have 2 and 3 numbers; label the videos again"):
        read_vectors(results)
