import numpy as np
import pyarrow as pa
import pytest
import torch

from openvis_model.vocabulary import VocabularyEmbedding
from pipelines.archive.relabel_part import named
from pipelines.archive.tables import SCHEMAS
from tests.pipelines.archive.labels import row


def test_scores_are_worked_out_by_hand() -> None:
    """A track at (1, 0) with objectness 0.5; names at (1, 0), (0, 1), (0.8, 0.6); scale ln 2, so that e to it is 2."""
    vocabulary = VocabularyEmbedding(("a", "b", "c"), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6]]), np.log(2.0))
    track = row("tracks", track_id=4, objectness=0.5, embedding=[1.0, 0.0], category="old", score=1.0)
    found = named(pa.Table.from_pylist([track], SCHEMAS["tracks"]), vocabulary, top=2).to_pylist()[0]
    whole = 2 + 1 + 2**0.8
    assert found["top"] == [
        {"category": "a", "score": pytest.approx(0.5 * 2 / whole)},
        {"category": "c", "score": pytest.approx(0.5 * 2**0.8 / whole)},
    ]
    assert (found["category"], found["score"], found["track_id"]) == ("a", pytest.approx(0.2109, abs=1e-4), 4)
