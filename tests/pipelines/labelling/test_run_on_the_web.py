"""The labelling pipeline with videos on a web server that fails now and then."""

from functools import partial
from pathlib import Path

import pyarrow.compute as pc
import pytest

from pipelines.archive.tables import read_masks
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.run import label_videos
from pipelines.video.web import Web
from tests.pipelines.video.clips import H264, write_clip
from tests.pipelines.video.web_server import web_server


@pytest.mark.nightly
@pytest.mark.usefixtures("cluster", "disc_model")
def test_videos_on_the_web_are_labelled_as_local_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is missing, one leads into a private network, one is too large."""
    write_clip(tmp_path / "good.mp4", options=H264)
    (tmp_path / "names.txt").write_text("red star\n")
    # A server on this machine is refused otherwise.
    monkeypatch.setattr("pipelines.labelling.pipeline.Web", partial(Web, internal=frozenset({"127.0.0.1"})))
    names = ("good", "large", "missing", "elsewhere")
    with web_server() as server:
        server.files = {"/good.mp4": (tmp_path / "good.mp4").read_bytes(), "/large.mp4": bytes(5_000_000)}
        server.moved = {"/elsewhere.mp4": "http://10.0.0.1/good.mp4"}
        server.statuses, server.cuts = [503, 0], 20
        lines = ["uri,video_id", *(f"{server.url}/{name}.mp4,{name}" for name in names), "good.mp4,local"]
        (tmp_path / "list.csv").write_text("\n".join(lines))
        config = LabelConfig(
            input=str(tmp_path / "list.csv"),
            output=str(tmp_path / "labels"),
            allow_http=True,
            http_max_gb=0.004,
            vocabulary=str(tmp_path / "names.txt"),
            stride=4,
        )
        summary = label_videos(config)
    assert summary.ok == 2
    assert summary.failures.keys() == {"large", "missing", "elsewhere"}
    assert summary.failures["large"] == "cannot be downloaded: it is larger than 0.004 GB; raise --http_max_gb"
    assert summary.failures["missing"] == "file not found"
    assert "the address of 10.0.0.1, 10.0.0.1, is not public" in summary.failures["elsewhere"]
    assert {asked for _, asked in server.requests if asked}
    masks = read_masks(config.output)
    ours, local = (masks.filter(pc.equal(masks["video_id"], name)) for name in ("good", "local"))
    assert ours.num_rows
    assert ours.drop_columns("video_id").equals(local.drop_columns("video_id"))
