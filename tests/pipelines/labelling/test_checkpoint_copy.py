"""Model actors that do not see the driver's folder."""

from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from openvis_model.folded.inst_former import FoldedInstFormer
from openvis_model.options import AssociationConfig, VideoTrackerConfig
from openvis_model.weights.checkpoint import load_checkpoint, save_checkpoint
from openvis_model.weights.files import BUILT_IN
from pipelines.archive.tables import Results
from pipelines.cluster.nodes import node_id
from pipelines.labelling import checkpoint_copy
from pipelines.labelling.checkpoint_copy import SharedCheckpoint
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.run import label_videos
from pipelines.models import load_model
from pipelines.recipes.build import cached_checkpoint
from pipelines.storage import s3
from pipelines.storage.files import Storage
from tests import hub
from tests.pipelines.video.clips import write_clip


@pytest.fixture
def checkpoint(cluster: None, tmp_path: Path) -> SharedCheckpoint:
    fingerprint = save_checkpoint(load_checkpoint(BUILT_IN), tmp_path / "mine")
    (tmp_path / "mine/optimizer.pt").touch()
    return SharedCheckpoint.of(str(tmp_path / "mine"), fingerprint)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The folders that are loaded, each with its files."""
    folders: list[str | None] = []

    def load(path: str | None) -> object:
        folders.append(path)
        assert path is None or not list(Path(path).glob("*.pt")) or Path(path).name == "mine"
        return load_model(path)

    monkeypatch.setattr(checkpoint_copy, "load_model", load)
    return folders


def test_a_folder_that_is_the_same_here_is_read_here(checkpoint: SharedCheckpoint, loaded: list[str | None]) -> None:
    assert checkpoint.load().fingerprint == checkpoint.fingerprint
    assert loaded == [checkpoint.path]


@pytest.mark.parametrize("here", [None, "0123"])
def test_a_folder_that_is_not_here_is_copied_from_the_driver(
    here: str | None, checkpoint: SharedCheckpoint, loaded: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or that is another one here; in pieces, each of them small."""
    monkeypatch.setattr(checkpoint_copy, "_fingerprint", lambda _: here)
    monkeypatch.setattr(checkpoint_copy, "_PIECE", 2**20)
    assert checkpoint.load().fingerprint == checkpoint.fingerprint
    (copy,) = loaded
    assert copy not in (None, checkpoint.path)
    assert not Path(str(copy)).exists()


def test_a_folder_that_has_changed_is_refused(checkpoint: SharedCheckpoint, bucket: str) -> None:
    """Otherwise its labels would be under the name of another model."""
    earlier = replace(checkpoint, fingerprint="0123")
    with pytest.raises(ValueError, match="checkpoint: .*mine has changed since the run began; run it again"):
        earlier.load()
    for file in Path(str(checkpoint.path)).rglob("*"):
        if file.is_file():
            s3.upload(file, f"{bucket}/mine/{file.relative_to(str(checkpoint.path))}")
    on_s3 = SharedCheckpoint.of(f"{bucket}/mine", checkpoint.fingerprint)
    assert on_s3.load().fingerprint == checkpoint.fingerprint
    with pytest.raises(ValueError, match="s3://.*mine.* has changed"):
        replace(on_s3, fingerprint="0123").load()


def test_the_built_in_model_is_everywhere(cluster: None) -> None:
    expected = load_model(None).fingerprint
    assert SharedCheckpoint.of(None, expected).load().fingerprint == expected


class HiddenCheckpoint(SharedCheckpoint):
    """Is only on the driver's machine; notes what other machines load instead."""

    def load(self) -> FoldedInstFormer:
        if node_id() == self.node:
            return super().load()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoint_copy, "_fingerprint", lambda _: None)
            model = super().load()
        Path(f"{self.path}.elsewhere").write_text(model.fingerprint)
        return model


@pytest.mark.nightly
def test_a_recipe_is_built_by_the_driver_and_read_everywhere(
    no_cluster: None, offline: Path, repositories: dict[str, hub.Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines that label neither see the driver's folders nor know the hub."""
    checkpoint = cached_checkpoint("small", hub.recipe_for_workers(tmp_path, repositories), lambda _: None)
    (tmp_path / "videos").mkdir()
    write_clip(tmp_path / "videos/a.mp4", frames=12)
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})  # only the driver runs there
    try:
        cluster.add_node(num_cpus=4)
        ray.init(address=cluster.address, log_to_driver=False)
        monkeypatch.setattr("pipelines.labelling.run.SharedCheckpoint", HiddenCheckpoint)
        config = LabelConfig(
            input=str(tmp_path / "videos"),
            output=str(tmp_path / "labels"),
            vocabulary=str(tmp_path / "names.txt"),
            checkpoint=checkpoint,
            tracker=VideoTrackerConfig(association=AssociationConfig(kind="hungarian", token="query")),
        )
        summary = label_videos(config)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert (summary.ok, summary.failures, summary.frames) == (1, {}, 12)
    (row,) = Results(Storage(config.output)).read("videos").to_pylist()
    assert Path(f"{checkpoint}.elsewhere").read_text() == row["model_fingerprint"]
