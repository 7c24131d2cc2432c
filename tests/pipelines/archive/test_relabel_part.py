from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from openvis_model.vocabulary import VocabularyEmbedding
from pipelines.archive.parts import Rows
from pipelines.archive.relabel_part import Relabel, named
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from pipelines.storage.lease import LEASE, hold_lease
from tests.pipelines.archive.labels import part_name, put_part, row
from tests.pipelines.storage.s3_server import Outage


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


def test_sigmoid_scores_are_worked_out_by_hand() -> None:
    """The same track at scale ln 2 and bias ln 3: odds of 2 · 3 for a, 3 for b."""
    vocabulary = VocabularyEmbedding(("a", "b"), torch.eye(2), np.log(2.0), logit_bias=np.log(3.0))
    track = row("tracks", track_id=4, objectness=0.5, embedding=[1.0, 0.0], category="old", score=1.0)
    found = named(pa.Table.from_pylist([track], SCHEMAS["tracks"]), vocabulary, top=2).to_pylist()[0]
    assert [name["score"] for name in found["top"]] == pytest.approx([0.5 * 6 / 7, 0.5 * 3 / 4])


def renaming(source: Results, target: Results, holder: str, name: str = "star") -> Relabel:
    return Relabel(
        source=source,
        target=target,
        vocabulary=VocabularyEmbedding((name,), torch.ones(1, 0), 1.0),
        fingerprint="v",
        top=1,
        run="000001-00000000",
        holder=holder,
        stall_s=60.0,
    )


@pytest.mark.parametrize("moment", ["first", "put"])
def test_a_part_waits_while_s3_is_away(
    tmp_path: Path, outage: Outage, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = Results(Storage(str(tmp_path))), Results(Storage("s3://outage/labels"))
    put_part(source, part_name(1), "a")
    put = Rows.put

    def put_during_outage(self: Rows, *arguments: Any) -> None:
        if not outage.stops:
            outage.begin(1.5)
        put(self, *arguments)

    monkeypatch.setattr(Rows, "put", put_during_outage)
    with hold_lease(target.storage) as lease:
        if moment == "first":
            outage.begin(1.5)
        assert renaming(source, target, lease.id)(part_name(1), None) == {"videos": 1, "tracks": 1}
    assert outage.stops == 1
    assert target.read("masks").num_rows == 2


def test_a_task_that_is_repeated_leaves_its_part_as_it_is(tmp_path: Path) -> None:
    """Its size may be registered; on another machine, sums of floats have other bits, which another name stands for."""
    source, target = (Results(Storage(str(tmp_path / name))) for name in ("labels", "output"))
    put_part(source, part_name(1), "a")
    with hold_lease(target.storage) as lease:
        assert renaming(source, target, lease.id)(part_name(1), None) == {"videos": 1, "tracks": 1}
        assert renaming(source, target, lease.id, "moon")(part_name(1), None) == {"videos": 1, "tracks": 1}
    assert target.read("tracks")["category"].to_pylist() == ["star"]


def test_a_run_whose_lease_another_one_took_puts_no_part(tmp_path: Path) -> None:
    """In this process, parts that are under way go on after the driver has given up."""
    source, target = (Results(Storage(str(tmp_path / name))) for name in ("labels", "output"))
    put_part(source, part_name(1), "a")
    with hold_lease(target.storage) as lease:
        work = renaming(source, target, lease.id)
        with target.storage.write(LEASE) as file:
            file.write(b'{"id": "another", "host": "elsewhere", "pid": 1, "released": false}')
        with pytest.raises(RuntimeError, match="another run took over"):
            work(part_name(1), None)
    assert target.parts() == []
