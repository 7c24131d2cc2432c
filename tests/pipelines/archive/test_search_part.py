import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines.archive.parts import Rows
from pipelines.archive.search_part import Best
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name, put_part, row


def test_the_best_of_a_part_are_those_with_the_largest_cosine(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(20_000, 4))  # several row groups
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = Rows()
    tracks = [
        row("tracks", video_id="gone" if number % 2 else "there", track_id=number, embedding=vector.tolist())
        for number, vector in enumerate(vectors)
    ]
    rows.add("tracks", tracks)
    for video in ("there", "gone"):
        rows.add("videos", [row("videos", video_id=video, status="ok")])
    results = Results(Storage(str(tmp_path)))
    rows.put(results.storage, part_name(1))
    put_part(results, part_name(2), "gone", category="star")  # labelled again: its old rows do not count
    counting = results.counting()[part_name(1)]
    wanted = vectors[0].astype(np.float32)
    found = Best(results=results, wanted=wanted, top=5)(part_name(1), counting)
    expected = 2 * np.argsort(-(vectors[::2] @ vectors[0]))[:5]
    assert [hit["track_id"] for hit in found["hits"]] == expected.tolist()
    assert found["hits"][0]["similarity"] == pytest.approx(1)
    assert found["tracks"] == 10_000


def test_its_processes_do_without_torch() -> None:
    look = "import sys, pipelines.archive.search_part; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0
