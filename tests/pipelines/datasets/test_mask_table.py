import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from pipelines.datasets import mask_table, run_lengths
from pipelines.datasets.annotations import Mask
from pipelines.datasets.documents import NOTHING, read_document
from pipelines.datasets.mask_table import ABSENT, MaskRows, MaskTable
from pipelines.datasets.run_lengths import CorruptMaskError
from tests.pipelines.metrics.tracks import encode


def masks_of(size: tuple[int, int], n: int) -> list[Mask]:
    rng = np.random.default_rng(n)
    return [encode(rng.random(size) < share) for share in rng.random(n)]


def table_of(path: Path, masks: list[Mask]) -> MaskTable:
    path.write_text(json.dumps([{"counts": mask.counts.decode()} for mask in masks]))
    table = MaskTable(read_document(str(path), lambda document: document.lifted))
    table.sizes[:-1] = [mask[:2] for mask in masks]
    return table


def test_masks_are_those_of_the_file(tmp_path: Path) -> None:
    masks = masks_of((40, 70), 50)
    assert any(b"\\" in mask.counts for mask in masks), "JSON doubles it"
    table = table_of(tmp_path / "a.json", masks)
    rows = MaskRows(table, np.array([3, ABSENT, 49]))
    expected = (masks[3], None, masks[49])
    assert (len(table), len(rows), tuple(rows), rows[-1]) == (50, 3, expected, masks[49])
    assert tuple(rows[:2]) == expected[:2]
    assert rows == MaskRows(table, rows.rows.copy()) == expected
    assert hash(rows) == hash(expected)
    assert rows != list(expected)
    assert [table.text(row) for row in (3, 49)] == [masks[3].counts.decode(), masks[49].counts.decode()]
    assert repr(rows) == repr(expected)


def test_a_table_from_read_only_memory_can_be_read(tmp_path: Path) -> None:
    """Ray hands arrays to other processes where they lie."""
    table = table_of(tmp_path / "a.json", masks_of((40, 70), 5))
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(table, 5, buffer_callback=buffers.append)
    copy = pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])
    assert not copy.sizes.flags.writeable
    copy.check(np.arange(5))
    assert copy.mask(3) == table.mask(3)


def test_reading_equals_reading_masks(tmp_path: Path) -> None:
    masks = masks_of((40, 70), 50)
    table = table_of(tmp_path / "a.json", masks)
    tracks = [MaskRows(table, np.array([3, ABSENT, 49])), MaskRows(table, np.array([0]))]
    for some in (tracks, [tracks[0], (masks[0],)], [tuple(track) for track in tracks], []):
        found, expected = mask_table.read(some), run_lengths.read([mask for track in some for mask in track])
        for array, other in zip(found, expected, strict=True):
            assert array.tolist() == other.tolist()
    assert len(MaskTable(NOTHING).read(np.array([ABSENT]))) == 1


@pytest.mark.parametrize("text", ["", "0", "\\\\", "\\u0030", "07", "06\\n", "0\\/6", "é"])
def test_unsound_masks_are_refused(tmp_path: Path, text: str) -> None:
    """Some of them are sound JSON that is spelled in another way; their file is read as it stands."""
    (tmp_path / "a.json").write_text('[{"counts": "06"}, {"counts": "TEXT"}, {"counts": "06"}]'.replace("TEXT", text))
    table = MaskTable(read_document(str(tmp_path / "a.json"), lambda document: document.lifted))
    table.sizes[:-1] = 2, 3
    assert table.read(np.array([0, 2, ABSENT])).areas.tolist() == [6, 6, 0]
    with pytest.raises(CorruptMaskError, match="mask 1: it is not run lengths of its frame"):
        table.read(np.array([0, 1]))


def test_masks_are_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text('[{"counts": "06"}, {"counts": "07"}, {"counts": "06"}]')
    table = MaskTable(read_document(str(tmp_path / "a.json"), lambda document: document.lifted))
    table.sizes[:-1] = 2, 3
    sound, corrupt = MaskRows(table, np.array([0, ABSENT, 2])), MaskRows(table, np.array([1, 2]))
    mask_table.check([(), sound, sound])
    with pytest.raises(CorruptMaskError):
        mask_table.check([sound, corrupt])
    monkeypatch.setattr(run_lengths, "decode", None)
    mask_table.check([sound, (Mask(2, 3, b"07"),)])


def test_spelling(tmp_path: Path) -> None:
    a, b = masks_of((40, 70), 2)
    table = table_of(tmp_path / "a.json", [a, b, a, b, b, a])
    one, same, other = (table.spelling(np.array(rows)).tobytes() for rows in ([0, 1], [ABSENT, 2, ABSENT, 3], [4, 5]))
    assert one == same != other
    assert table.spelling(np.array([1])).tobytes() == b.counts.replace(b"\\", b"\\\\")
    assert len(table.spelling(np.array([ABSENT]))) == 0
