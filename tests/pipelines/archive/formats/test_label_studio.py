import json
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pipelines.archive.export import ExportSummary
from tests.pipelines.archive.exports import HEIGHT, SEEN, WIDTH, export


def shown(region: Any) -> dict[int, list[float]]:
    """Boxes of each frame, as Label Studio's VideoRectangle shows them.

    A frame shows the last box of the sequence before it, if that is enabled, interpolated to the next one.
    """
    value, found = region["value"], {}
    sequence = value["sequence"]
    assert all(first["frame"] < second["frame"] for first, second in pairwise(sequence))
    for box, later in pairwise([*sequence, sequence[-1] | {"frame": value["framesCount"] + 1}]):
        for frame in range(box["frame"], later["frame"] if box["enabled"] else box["frame"] + 1):
            share = (frame - box["frame"]) / (later["frame"] - box["frame"])
            found[frame] = [box[side] + (later[side] - box[side]) * share for side in ("x", "y", "width", "height")]
    return found


def test_label_studio_shows_each_box_where_its_mask_is(labels: str, tmp_path: Path) -> None:
    losses = ("boxes without masks: 4 tracks (b-2/0, b-2/2, a/0, …)",)
    assert export(labels, tmp_path, "label_studio") == ExportSummary(videos=2, tracks=4, losses=losses)
    tasks = {task["data"]["video_id"]: task for task in json.loads((tmp_path / "tasks.json").read_text())}
    assert tasks["a"]["data"] == {"video": "/videos/a.mp4", "fps": 10.0, "video_id": "a"}
    scale = [100 / WIDTH, 100 / HEIGHT] * 2
    for video, tracks in SEEN.items():
        regions = tasks[video]["predictions"][0]["result"] if tracks else []
        assert {region["meta"]["track_id"] for region in regions} == set(tracks)
        for region in regions:
            track = region["meta"]["track_id"]
            name, _, frames = tracks[track]
            assert (region["type"], region["value"]["labels"]) == ("videorectangle", [name])
            found = shown(region)
            assert {frame - 1 for frame in found if (frame - 1) % 3 == 0} == set(frames)
            for frame in frames:
                box = (frame // 3, track, 3, 2)
                assert found[frame + 1] == [side * factor for side, factor in zip(box, scale, strict=True)]
    stars = {region["value"]["labels"][0]: region for region in tasks["a"]["predictions"][0]["result"]}
    assert set(shown(stars["star"])) == set(range(1, 10))  # seen until another track is seen alone


def test_the_configuration_has_the_names_that_regions_refer_to(labels: str, tmp_path: Path) -> None:
    export(labels, tmp_path, "label_studio")
    view = ElementTree.parse(tmp_path / "config.xml").getroot()  # noqa: S314 - our own
    tags = {tag.get("name"): tag for tag in view}
    assert [label.get("value") for label in view.iterfind("Labels/Label")] == ["moon", "ring & disc", "star"]
    for task in json.loads((tmp_path / "tasks.json").read_text()):
        assert tags["video"].attrib == {"name": "video", "value": "$video", "frameRate": "$fps"}
        for prediction in task["predictions"]:
            assert {"model_version", "score"} < set(prediction)
            for region in prediction["result"]:
                assert tags[region["from_name"]].tag == "VideoRectangle"
                assert tags[region["from_name"]].get("toName") == region["to_name"] == "video"
