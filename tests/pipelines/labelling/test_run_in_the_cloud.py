"""The labelling pipeline with everything in a cloud, over a network that fails now and then."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from openvis_model.options import AssociationConfig, VideoTrackerConfig
from openvis_model.weights.checkpoint import load_checkpoint, save_checkpoint
from openvis_model.weights.files import BUILT_IN
from pipelines.archive.config import RelabelConfig, SearchConfig
from pipelines.archive.relabel import relabel
from pipelines.archive.search import search
from pipelines.archive.tables import read_masks, read_tracks, read_videos
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.run import label_videos
from pipelines.overlays.pictures import pictures
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.objects import list_objects
from tests.pipelines.storage.clouds import KEY, Place, needs_azurite
from tests.pipelines.storage.put import Put
from tests.pipelines.storage.s3_server import SECRET
from tests.pipelines.video.clips import H264, write_clip

KEYS = ("a b/0%20+é.mp4", "a b/1.mp4", "2?#.mp4")
TRACKER = VideoTrackerConfig(association=AssociationConfig(min_similarity=-1.0), objectness_threshold=0.55, max_gap=2)


@pytest.fixture(
    params=[
        "s3",
        "gcs",
        pytest.param("azure", marks=needs_azurite),
    ]
)
def home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where input, output, checkpoint and vocabulary are."""
    if request.param != "s3":
        place: Place = request.getfixturevalue(f"{request.param}_place")
        monkeypatch.setattr("pipelines.storage.azure.PAUSE_S", 0.5)  # long enough for the outage
        return place
    return Place(bucket=request.getfixturevalue("bucket"), proxy=request.getfixturevalue("proxy"))


@pytest.fixture
def cluster(home: Place, no_cluster: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Starts Ray, whose workers inherit the proxy's environment; returns their folder for temporary files."""
    folder = Path(tempfile.mkdtemp(prefix="ov-"))  # Ray's sockets need a short path
    monkeypatch.setenv("TMPDIR", str(folder))
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield folder
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def tables(output: str) -> dict[str, list[dict[str, Any]]]:
    """Returns what does not depend on where videos and tables are, sorted by the videos' numbers."""
    videos = sorted(read_videos(output).to_pylist(), key=lambda row: Path(row["uri"]).name)
    number = {row["video_id"]: i for i, row in enumerate(videos)}
    labelled = {"videos": videos}
    for name, table in (("tracks", read_tracks(output)), ("masks", read_masks(output))):
        rows = table.to_pylist()
        labelled[name] = sorted(rows, key=lambda row: (number[row["video_id"]], row["track_id"], row.get("frame", 0)))
    for rows in labelled.values():
        for row in rows:
            row["video_id"] = number[row["video_id"]]
            for own in ("uri", "model_s", "tracker_s"):
                row.pop(own, None)
    return labelled


@pytest.mark.nightly
def test_tables_in_the_cloud_are_those_of_local_videos(
    home: Place,
    cluster: Path,
    disc_model: None,
    put: Put,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    bucket, proxy = home.bucket, home.proxy
    for number, key in enumerate(KEYS):
        clip = render(SceneConfig(frames=24), "novel", 0, number)
        path = tmp_path / "videos" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, frames=24, fps=8, options=H264, draw=lambda i, height, width, frames=clip.frames: frames[i])
        put(f"{bucket}/in/{key}", path.read_bytes())
    (tmp_path / "videos" / "junk.mp4").write_bytes(b"no video at all" * 100)
    put(f"{bucket}/in/junk.mp4", b"no video at all" * 100)
    save_checkpoint(load_checkpoint(BUILT_IN), tmp_path / "checkpoint")
    for file in (tmp_path / "checkpoint").rglob("*.*"):
        put(f"{bucket}/model/{file.relative_to(tmp_path / 'checkpoint')}", file.read_bytes())
    (tmp_path / "names.txt").write_text("".join(f"{category.name}\n" for category in CATEGORIES[::5]))
    names_in_the_cloud = put(f"{bucket}/names.txt", (tmp_path / "names.txt").read_bytes())

    options: dict[str, Any] = {"tracker": TRACKER, "segment_frames": 8}
    local = LabelConfig(
        input=str(tmp_path / "videos"),
        output=str(tmp_path / "out"),
        checkpoint=str(tmp_path / "checkpoint"),
        vocabulary=str(tmp_path / "names.txt"),
        **options,
    )
    remote = LabelConfig(
        input=f"{bucket}/in",
        output=f"{bucket}/out",
        checkpoint=f"{bucket}/model",
        vocabulary=names_in_the_cloud,
        **options,
    )
    label_videos(local)
    assert tables(local.output)["masks"]

    usual = dict.fromkeys(("500", "503", "reset", "cut"), 0.03)
    proxy.share = usual
    for seconds, share in ((2.0, {"503": 0.5, "reset": 0.5}), (5.0, usual)):  # an outage of three seconds
        threading.Timer(seconds, setattr, (proxy, "share", share)).start()
    proxy.requests.clear()
    summary = label_videos(remote)
    assert (summary.ok, list(summary.failures.values())) == (3, ["not a video file"])
    proxy.share = {}
    assert proxy.spoiled
    assert tables(remote.output) == tables(local.output)
    uris = {row["uri"] for row in read_videos(remote.output).to_pylist()}
    assert uris == {f"{bucket}/in/{key}" for key in (*KEYS, "junk.mp4")}
    paths = [entry.uri.removeprefix(f"{bucket}/out/") for entry in list_objects(f"{bucket}/out")]
    written = [path.partition("/")[0] for path in paths if "/_delta_log/" not in path]
    assert sorted(written) == sorted(["lease.json", "runs", *(["videos", "tracks", "masks"] * 2)])
    (cache,) = cluster.glob("openvis-downloads-*")
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 4
    assert not [name for name in cluster.iterdir() if name.name.startswith(("openvis-rows", "openvis-upload"))]

    before = len(list(list_objects(f"{bucket}/out")))
    proxy.requests.clear()
    again = label_videos(remote)
    assert (again.ok, again.skipped, again.frames) == (0, 4, 0)
    assert proxy.count("GET", "/in/") == 0
    assert len(list(list_objects(f"{bucket}/out"))) == before
    for row in read_videos(remote.output).to_pylist():
        assert not {SECRET, KEY} & set(map(str, row.values()))
    told = "".join(capfd.readouterr())
    assert SECRET not in told
    assert KEY not in told

    names = "".join(f"{category.name}\n" for category in CATEGORIES[1::5]).encode()
    (tmp_path / "new.txt").write_bytes(names)
    relabelled, relabelled_there = str(tmp_path / "new"), f"{bucket}/new"
    relabel(RelabelConfig(labels=local.output, output=relabelled, vocabulary=str(tmp_path / "new.txt")))
    new_names = put(f"{bucket}/new.txt", names)
    relabel(
        RelabelConfig(labels=remote.output, output=relabelled_there, vocabulary=new_names, checkpoint=remote.checkpoint)
    )
    assert tables(relabelled_there) == tables(relabelled) != tables(local.output)
    hits = search(SearchConfig(labels=relabelled_there, text="red striped star", top=1)).hits
    assert [tile.video for tile in pictures(hits)[0]] == [Path(hits[0].uri).name]
