"""`python -m tests.pipelines.archive.relabelling LABELS OUTPUT`: labels videos again and again, and renames them.

Each round labels some videos anew and one more, in a part of their own; `relabel` brings the output up to date, and
`compact` merges its parts. All of it is the code that the jobs run, on videos with two tracks each.
"""

import json
import sys

import numpy as np

from openvis_model.weights.files import BUILT_IN
from pipelines.archive import registration
from pipelines.archive.compaction import compact
from pipelines.archive.config import CompactConfig, RelabelConfig
from pipelines.archive.parts import Rows
from pipelines.archive.relabel import relabel
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name, row

ROUNDS = 4
TRACKS = 2


def label(labels: Storage, number: int) -> None:
    """Puts a part with the videos of a round in place: v0 and a third of the others again, and a new one."""
    fingerprint = json.loads((BUILT_IN / "config.json").read_text())["fingerprint"]
    video = {"status": "ok", "tracks": TRACKS, "model_fingerprint": fingerprint}
    rows, dice = Rows(), np.random.default_rng(number)
    for each in range(3 * number + 3):
        if each and each % 3 != number % 3 and each < 3 * number:
            continue
        name = f"v{each:02}"
        rows.add("videos", [row("videos", video_id=name, uri=f"round {number}", **video)])
        for track in range(TRACKS):
            embedding = dice.normal(size=128)
            embedding /= np.linalg.norm(embedding)
            known = {"video_id": name, "track_id": track, "score": 0.5, "objectness": 0.9, "category": "old", "top": []}
            rows.add("tracks", [row("tracks", **known, embedding=embedding.tolist())])
            rows.add("masks", [row("masks", video_id=name, track_id=track, frame=number, score=0.5)])
    rows.put(labels, part_name(number + 1))


def main(labels: str, output: str, vocabulary: str) -> None:
    registration.EVERY_S = 0.01
    for number in range(ROUNDS):
        label(Storage(labels), number)
        relabel(RelabelConfig(labels=labels, output=output, vocabulary=vocabulary))
        compact(CompactConfig(labels=output))
    assert len(Results(Storage(output)).parts()) == 1


if __name__ == "__main__":
    main(*sys.argv[1:])
