import numpy as np
import pytest

from pipelines.archive import buckets
from pipelines.archive.stale import counting, find_stale
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name, put_part


@pytest.mark.parametrize("batch", [1, 2**16])
def test_what_is_stale_is_what_readers_leave_out(batch: int, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random archives against `Results.counting`, which holds all ids in memory."""
    monkeypatch.setattr(buckets, "BATCH", batch)
    dice = np.random.default_rng(batch)
    for archive in range(5):
        results = Results(Storage(f"{tmp_path}/{archive}"))
        for run in range(6):
            ids = dice.choice(12, size=dice.integers(1, 5), replace=False)
            put_part(results, part_name(run), *(f"v{i}" for i in ids), status=str(dice.choice(["ok", "failed"])))
        parts, expected = results.parts(), results.counting()
        stale = find_stale(results, parts)
        listed = dict(zip(parts, results.listed(parts), strict=True))
        for part in parts:
            ids = listed[part]["video_id"].to_pylist()
            left_out = [row for row, video_id in enumerate(ids) if video_id not in expected[part].to_pylist()]
            assert counting(listed[part], stale.get(part))["video_id"].to_pylist() == expected[part].to_pylist()
            assert stale.get(part, np.empty(0)).tolist() == left_out
        assert stale
