"""Real clusters of a few machines: one sees no video, comes only when it is asked for, or has labels."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
from ray.cluster_utils import Cluster
from ray.experimental.internal_kv import _internal_kv_get

from pipelines.archive.tables import Results
from pipelines.cluster.nodes import node_id
from pipelines.labelling import decoder_process
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.decode_operator import Decode, Plan
from pipelines.labelling.progress import Progress
from pipelines.labelling.rows import BatchRow, SegmentRow
from pipelines.labelling.run import label_videos
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.files import Storage
from tests.pipelines.labelling.bad_decoders import killed
from tests.pipelines.labelling.discs import DiscModel
from tests.pipelines.labelling.pools import model_actors, note_actor


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


@pytest.mark.nightly
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


@pytest.mark.nightly
def test_a_pool_grows_with_its_cluster(no_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one GPU is busy, another machine is asked for; when it comes, here from this test, it gets an actor.

    In earlier versions of Ray, a pool whose only GPU was in use neither grew nor asked (ray-project/ray#59144).
    """
    archive = write_split(tmp_path, "novel", 30, 0, SceneConfig(frames=12)).path
    seen = tmp_path / "seen"

    class Slow(DiscModel):
        """One alone takes its time."""

        def __call__(self, batches: pa.Table) -> pa.Table:
            note_actor(seen)
            if len(list(seen.iterdir())) < 2:
                time.sleep(1)  # Ray asks for machines while there is progress
            return super().__call__(batches)

    monkeypatch.setattr("pipelines.labelling.pipeline.Model", Slow)
    monkeypatch.setattr("pipelines.labelling.pipeline.ROW_BYTES", 1)  # each batch is a task
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
    machines = [partial(cluster.add_node, num_cpus=1, num_gpus=1, wait=False)]

    def start_wanted(done: Progress, total: int) -> None:
        wanted = json.loads(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL) or "[]")
        if machines and sum(node.get("GPU", 0) for node in wanted) > 1:
            machines.pop()()

    try:
        cluster.add_node(num_cpus=1, num_gpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        config = LabelConfig(
            input=str(archive / "videos"),
            output=str(tmp_path / "labels"),
            vocabulary=str(archive / "vocabulary.txt"),
            batch_size=2,
            model_gpus=1,
            model_actors="1-2",
        )
        with model_actors() as sizes:
            summary = label_videos(config, start_wanted)
        assert (summary.ok, summary.failures, machines) == (30, {}, [])
        assert sizes[:3] == [0, 1, 2]
    finally:
        ray.shutdown()
        cluster.shutdown()


class Noting(Decode):
    """Notes the machine that it runs on."""

    def __init__(self, folder: Path, *options: Any) -> None:
        super().__init__(*options)
        self.folder = folder

    def batches(self, row: SegmentRow) -> Iterator[BatchRow]:
        (self.folder / f"decode-{node_id()}").touch()
        return super().batches(row)


@pytest.mark.nightly
def test_operators_run_on_the_machines_that_were_named(
    no_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Videos are read on spot machines; of the kinds for the model, there is only the second."""
    archive = write_split(tmp_path, "novel", 6, 0, SceneConfig(frames=12)).path
    notes = tmp_path / "notes"
    notes.mkdir()

    class NotingModel(DiscModel):
        def __call__(self, batches: pa.Table) -> pa.Table:
            (notes / f"model-{node_id()}").touch()
            return super().__call__(batches)

    monkeypatch.setattr("pipelines.labelling.pipeline.Decode", partial(Noting, notes))
    monkeypatch.setattr("pipelines.labelling.pipeline.Model", NotingModel)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        spot = cluster.add_node(num_cpus=2, labels={"ray.io/market-type": "spot"})
        gpu = cluster.add_node(num_cpus=2, labels={"kind": "small"})
        config = LabelConfig(
            input=str(archive / "videos"),
            output=str(tmp_path / "labels"),
            vocabulary=str(archive / "vocabulary.txt"),
            decode_on=["ray.io/market-type=spot"],
            model_on=["kind=large", "kind=small"],
        )
        summary = label_videos(config)
        assert (summary.ok, summary.failures) == (6, {})
        assert {note.name for note in notes.iterdir()} == {f"decode-{spot.node_id}", f"model-{gpu.node_id}"}
    finally:
        ray.shutdown()
        cluster.shutdown()
