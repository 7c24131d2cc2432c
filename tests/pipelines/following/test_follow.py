from pathlib import Path

import pyarrow.compute as pc
import pytest

from pipelines.archive.tables import read_masks, read_videos
from pipelines.following.config import TrackConfig
from pipelines.following.run import track_video
from tests.pipelines.following.videos import FRAMES, Scene, crossing, overlaps, track


def test_prompts_in_the_first_and_last_frame_find_the_same_track(scene: Scene, tmp_path: Path) -> None:
    for output, frame in (("first", 0), ("last", FRAMES - 1)):
        track(scene, tmp_path / output, scene.prompt(frame), stride=4)
        assert overlaps(scene, tmp_path / output, 0, 0)[::4].mean() > 0.7


def test_the_frame_of_a_prompt_is_looked_at_whatever_the_rate(scene: Scene, tmp_path: Path) -> None:
    """At 8 frames a second, frame 13 is on the screen at 1.7 s; every 8th frame is 0, 8 and 16."""
    prompt = scene.prompt(13).replace("frame 13", "1.7s")
    summary = track(scene, tmp_path, prompt, stride=8)
    assert summary.frames == 4
    masks = read_masks(str(tmp_path)).to_pylist()
    assert {row["frame"] for row in masks} == {0, 8, 13, 16}
    assert [row["time_s"] for row in masks if row["frame"] == 13] == [13 / 8]


def test_a_track_ends_at_a_cut_unless_told_otherwise(tmp_path: Path) -> None:
    cut = crossing(tmp_path / "cut.mp4", cut=16)
    track(cut, tmp_path / "cuts", cut.prompt(8), stride=4)
    assert max(read_masks(str(tmp_path / "cuts"))["frame"].to_pylist()) == 12
    assert [shot["first_frame"] for shot in read_videos(str(tmp_path / "cuts"))["shots"][0].as_py()] == [0, 16]
    track(cut, tmp_path / "none", cut.prompt(8), stride=4, shots="none")
    assert max(read_masks(str(tmp_path / "none"))["frame"].to_pylist()) > 15
    assert read_videos(str(tmp_path / "none"))["shots"][0].as_py() is None


@pytest.mark.parametrize(
    ("prompt", "error"),
    [
        ("frame 24: box 1 2 3 4", "is beyond the end of the video, which has 24 frames, 0 to 23, and lasts 3.00 s"),
        ("3s: point 1 2", "is beyond the end"),
        ("1s: box 100 20 40 10", "is not within the frame: the video is 128 x 96 pixels"),
        ("1s: box 0 0 5 5", "no proposal fits: of 2 in the frame, the best has an IoU of 0.00"),
        ("1s: point 2 2", "no proposal fits: of 2 in the frame, none covers its points"),
    ],
)
def test_a_prompt_that_cannot_be_followed_is_refused_at_once(
    prompt: str, error: str, scene: Scene, tmp_path: Path
) -> None:
    looked_at: list[int] = []
    config = TrackConfig(video=str(scene.path), output=str(tmp_path), prompt=prompt)
    with pytest.raises(ValueError, match=error):
        track_video(config, lambda done, total: looked_at.append(done))
    assert looked_at == []
    assert read_videos(str(tmp_path)).num_rows == 0


def test_two_prompts_mean_two_objects(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"prompt 2: .* means the same proposal as frame 12: box"):
        track(scene, tmp_path, scene.prompt(12), scene.prompt(12, name="again"))


def test_prompts_of_one_object_at_two_times_are_one_track(scene: Scene, tmp_path: Path) -> None:
    prompts = scene.prompt(4), scene.prompt(20)
    track(scene, tmp_path / "one", prompts[0], stride=4)
    (followed, prompt), (_, other) = track(scene, tmp_path / "two", *prompts, scene.prompt(8, 1), stride=4).tracks
    assert (followed.first_frame, followed.last_frame) == (0, 20)
    assert (str(prompt), str(other)) == (prompts[0], scene.prompt(8, 1))
    masks = read_masks(str(tmp_path / "two"))
    assert masks.filter(pc.equal(masks["track_id"], 0)).equals(read_masks(str(tmp_path / "one")))
    with pytest.raises(ValueError, match="prompt 2: frame 20: .* means the same object as frame 4: .*; remove one of"):
        track(scene, tmp_path / "names", prompts[0], scene.prompt(20, name="again"), stride=4)
