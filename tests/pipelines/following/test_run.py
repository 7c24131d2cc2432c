from pathlib import Path

import numpy as np
import pytest

from pipelines.archive.tables import Results, read_masks, read_tracks, read_videos
from pipelines.following.config import TrackConfig
from pipelines.following.run import track_video
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name
from tests.pipelines.following.videos import FRAMES, Scene, crossing, overlaps, track
from tests.pipelines.review.archives import put_video
from tests.pipelines.storage.put import Put


def test_an_object_is_followed_from_the_middle_to_both_ends(scene: Scene, tmp_path: Path) -> None:
    """It passes another one, which is another track; the archive is as labelling writes it."""
    summary = track(scene, tmp_path, scene.prompt(12), scene.prompt(6, 1, "moon"), stride=2)
    assert [(each.track_id, each.category, prompt.time) for each, prompt in summary.tracks] == [
        (0, "my star", "frame 12"),
        (1, "moon", "frame 6"),
    ]
    for number in (0, 1):
        ious = overlaps(scene, tmp_path, number, number)[::2]
        assert ious[:3].mean() > 0.7
        assert ious[-3:].mean() > 0.7
    (video,) = read_videos(str(tmp_path)).to_pylist()
    assert (video["status"], video["error"], video["frames"], video["expected_frames"]) == (
        "ok",
        None,
        FRAMES // 2,
        FRAMES // 2,
    )
    assert (video["width"], video["height"], video["tracks"], video["top"]) == (128, 96, 2, 1)
    assert [(shot["first_frame"], shot["last_frame"]) for shot in video["shots"]] == [(0, FRAMES - 2)]
    star, moon = read_tracks(str(tmp_path)).to_pylist()
    masks = read_masks(str(tmp_path))
    assert star["frames"] + moon["frames"] == masks.num_rows
    assert (star["category"], star["top"], star["unknown"]) == (
        "my star",
        [{"category": "my star", "score": star["score"]}],
        0,
    )
    assert star["score"] == star["objectness"] > 0.5
    assert np.linalg.norm(star["embedding"]) == pytest.approx(1, abs=1e-5)
    assert len(star["colour"]) == 3
    assert 20 < min(star["colour"]) <= max(star["colour"]) < 250
    scores = [row["score"] for row in masks.to_pylist() if row["track_id"] == 0]
    assert np.mean(scores) == pytest.approx(star["objectness"], abs=1e-6)
    order = list(zip(masks["frame"].to_pylist(), masks["track_id"].to_pylist(), strict=True))
    assert order == sorted(order)


def test_an_output_keeps_what_it_has(scene: Scene, tmp_path: Path) -> None:
    """The same again is done already; other prompts replace it only if asked to; another video is added."""
    out = tmp_path / "out"
    track(scene, out, scene.prompt(12), stride=12)
    assert track(scene, out, scene.prompt(12), stride=12).frames == 0
    with pytest.raises(ValueError, match=r"for other prompts or settings; give all prompts and --overwrite true"):
        track(scene, out, scene.prompt(12, 1), stride=12)
    track(scene, out, scene.prompt(12, 1, "moon"), stride=12, overwrite=True)
    assert read_tracks(str(out))["category"].to_pylist() == ["moon"]
    other = crossing(tmp_path / "other.mp4")
    track(other, out, other.prompt(12), stride=12)
    assert sorted(read_tracks(str(out))["category"].to_pylist()) == ["moon", "my star"]


def test_labels_are_not_mixed_with_followed_objects(scene: Scene, tmp_path: Path) -> None:
    put_video(Results(Storage(str(tmp_path))), part_name(1, 1), "v", "/v.mp4", {}, [0.0])
    with pytest.raises(ValueError, match=r"has videos that jobs.label has labelled; choose another output"):
        track(scene, tmp_path, scene.prompt(12))


def test_prompts_video_and_output_may_be_in_the_cloud(scene: Scene, bucket: str, put: Put, tmp_path: Path) -> None:
    put(f"{bucket}/videos/crossing.mp4", scene.path.read_bytes())
    put(f"{bucket}/prompts.txt", f"# of the star\n\n{scene.prompt(12)}\n".encode())
    options = {"video": f"{bucket}/videos/crossing.mp4", "output": f"{bucket}/out"}
    track_video(TrackConfig(**options, prompts=f"{bucket}/prompts.txt", stride=12))
    assert read_tracks(f"{bucket}/out")["category"].to_pylist() == ["my star"]


def test_bad_input_is_named(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "latin.txt").write_bytes(b"1s: point 1 2 = caf\xe9\n")
    given = {"video": str(scene.path), "output": str(tmp_path / "out")}
    for options, error in (
        ({"prompts": str(tmp_path / "empty.txt")}, r"prompts: .*empty.txt has no prompts"),
        ({"prompts": str(tmp_path / "latin.txt")}, r"prompts: .*latin.txt is not UTF-8 text"),
        ({"prompts": str(tmp_path / "absent.txt")}, r"prompts: .*absent.txt"),
        ({"prompt": ["1s: point 1 2", "what"]}, r"prompt 2: 'what' is not TIME"),
        ({"prompt": "1s: point 1 2", "video": str(tmp_path / "absent.mp4")}, r"video: .*absent.mp4 does not exist"),
        ({"prompt": "1s: point 1 2", "model_gpus": 1}, r"model_gpus: is 1, but this machine has no GPU"),
    ):
        config = TrackConfig(**given | options)  # type: ignore[arg-type] # of each kind
        with pytest.raises(ValueError, match=error):
            track_video(config)
