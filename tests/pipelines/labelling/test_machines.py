"""Faults of machines: a real cluster of two, of which one sees no video."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from pipelines.archive.tables import Results
from pipelines.cluster import node_id
from pipelines.labelling import decoder_process
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.decode_operator import Decode, Plan
from pipelines.labelling.rows import BatchRow, SegmentRow
from pipelines.labelling.run import label_videos
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.files import Storage
from tests.pipelines.labelling.bad_decoders import killed


class TroubledPlan(Plan):
    """On one machine no video is there; on the others something kills the decoder that opens the second one first."""

    def __init__(self, node: str, marker: Path, *options: Any) -> None:
        super().__init__(*options)
        self.node, self.marker = node, marker

    def segments(self, video: Mapping[str, str]) -> Iterator[SegmentRow]:
        if node_id() == self.node:
            for row in super().segments({**video, "uri": f"/absent{video['uri']}"}):
                yield replace(row, uri=video["uri"])
            return
        with pytest.MonkeyPatch.context() as patch:
            if video["uri"].endswith("1.mp4") and not self.marker.exists():
                self.marker.touch()
                patch.setattr(decoder_process, "plan", killed)
            yield from super().segments(video)


class TroubledDecode(Decode):
    """On one machine no video is there."""

    def __init__(self, node: str, *options: Any) -> None:
        super().__init__(*options)
        self.node = node

    def batches(self, row: SegmentRow) -> Iterator[BatchRow]:
        if node_id() != self.node:
            yield from super().batches(row)
            return
        for batch in super().batches(replace(row, uri=f"/absent{row.uri}")):
            yield replace(batch, uri=row.uri)


@pytest.mark.slow
def test_what_machines_do_wrong_is_no_fault_of_the_videos(
    no_cluster: None, disc_model: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are labelled on the other machine, in a second pass."""
    archive = write_split(tmp_path, "novel", 6, 0, SceneConfig(frames=12)).path
    spread = {"scheduler_spread_threshold": 0.0}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "_system_config": spread})
    try:
        bad = cluster.add_node(num_cpus=4)
        ray.init(address=cluster.address, log_to_driver=False)
        marker = tmp_path / "killed"
        monkeypatch.setattr("pipelines.labelling.pipeline.Plan", partial(TroubledPlan, bad.node_id, marker))
        monkeypatch.setattr("pipelines.labelling.pipeline.Decode", partial(TroubledDecode, bad.node_id))
        monkeypatch.setattr("pipelines.labelling.reconcile.PAUSE_S", 0.1)
        config = LabelConfig(
            input=str(archive / "videos"),
            output=str(tmp_path / "labels"),
            vocabulary=str(archive / "vocabulary.txt"),
        )
        summary = label_videos(config)
        assert (summary.ok, summary.failures, summary.frames, marker.exists()) == (6, {}, 72, True)
        assert Results(Storage(config.output)).read("masks").num_rows == 6 * 12 * 2
        (report,) = (tmp_path / "labels/runs").iterdir()
        assert list(json.loads(report.read_text())["avoided"].values()) == ["file not found"]
    finally:
        ray.shutdown()
        cluster.shutdown()
