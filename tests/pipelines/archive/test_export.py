from pathlib import Path

import pytest

from pipelines.archive.compaction import compact, settle
from pipelines.archive.config import CompactConfig, ExportConfig
from pipelines.archive.export import ExportSummary, export_annotations
from pipelines.archive.formats.registry import FORMATS
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from pipelines.storage.lease import hold_lease
from tests.pipelines.archive.exports import SEEN, export, put
from tests.pipelines.archive.labels import part_name


@pytest.mark.parametrize("kind", FORMATS)
def test_labels_that_change_meanwhile(labels: str, tmp_path: Path, kind: str) -> None:
    """Parts are merged, and a video gets a name that nothing had."""
    results = Results(Storage(labels))
    calls = []

    def change(done: int, total: int) -> None:
        calls.append((done, total))
        if done == 1:
            put(results, part_name(3), {video: {0: ("comet", 0.7, (0, 3))} for video in SEEN})
            compact(CompactConfig(output=labels))

    config = ExportConfig(labels=labels, output=str(tmp_path / "out"), format=kind)
    assert export_annotations(config, change).videos == 3
    assert calls == [(1, 3), (2, 3), (3, 3)]
    written = b"".join(file.read_bytes() for file in (tmp_path / "out").rglob("*.*"))
    assert b"comet" in written
    assert b"moon" in written  # of the video that had been written


@pytest.mark.usefixtures("as_user")
def test_what_cannot_be_exported_is_named(labels: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="^labels: .*labels has no tracks with a score of 1.0 or more"):
        export(labels, tmp_path / "none", "coco", min_score=1.0)
    with pytest.raises(ValueError, match="^labels: .*absent has no labels"):
        export(str(tmp_path / "absent"), tmp_path / "none", "coco")
    assert not (tmp_path / "none").exists()


def test_row_groups_of_which_nothing_counts_are_passed_over(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path / "labels")))
    seen = {0: ("star", 0.5, (0,))}
    put(results, part_name(1), {"a": seen, "b": {}, "c": seen})
    put(results, part_name(2), {"a": seen, "c": seen})
    assert export(results.storage.root, tmp_path / "out", "coco") == ExportSummary(videos=2, tracks=2)
    with hold_lease(results.storage) as lease:
        settle(results, lease)
    assert export(results.storage.root, tmp_path / "out", "coco") == ExportSummary(videos=2, tracks=2)
