import json
import shutil
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openvis_model.training.training_clip import TrainingClip
from pipelines.shapes.categories import BASE
from pipelines.shapes.files import write_split
from pipelines.shapes.render import Clip, render
from pipelines.shapes.scenes import SceneConfig
from pipelines.training.checks import open_training_data
from pipelines.training.clips import _order, choose_frames, sample
from pipelines.training.data import TrainingData, TrainingDataConfig
from pipelines.training.loader import batches
from pipelines.training.share import Share
from tests.pipelines.datasets.training_sets import (
    BLUE,
    RED,
    image_document,
    lvis_document,
    scene,
    video_document,
    write_images,
    write_json,
    write_videos,
)
from tests.pipelines.video.clips import H264, cut_off, number, write_clip

SCENES = SceneConfig(frames=9)
VIDEOS = 3
NONE = np.zeros(0, np.int64)
VARIED: dict[str, Any] = {"min_crop": 0.6, "flip": 0.5, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_split(tmp_path_factory.mktemp("shapes"), "train", VIDEOS, 0, SCENES).path


def open_shapes(path: Path, **changes: Any) -> TrainingData:
    settings = {"height": 96, "width": 128, "frames": 3, "flip": 0.0, **changes}
    return open_training_data(TrainingDataConfig(annotations=str(path / "instances.json"), **settings))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos as folders of images."""
    folder = tmp_path_factory.mktemp("folders")
    write_videos(folder)
    write_json(folder / "instances.json", video_document())
    return folder


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    folder = tmp_path_factory.mktemp("stills")
    write_images(folder)
    path = write_json(folder / "a.json", image_document())
    config = TrainingDataConfig(annotations=path, format="coco", height=64, width=96, frames=4, min_crop=0.5)
    return open_training_data(config)


def same(one: TrainingClip, other: TrainingClip) -> bool:
    arrays = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("frames", "masks", "categories"))
    return arrays and one.seed == other.seed


# Which frames


def test_frames_are_in_order_with_strides_up_to_the_largest() -> None:
    strides, starts = Counter[int](), Counter[int]()
    for seed in range(500):
        frames = choose_frames(40, NONE, 4, 3, np.random.default_rng(seed))
        assert len(frames) == 4
        assert 0 <= frames[0] < frames[-1] < 40
        strides.update(np.diff(frames).tolist())
        starts[int(frames[0])] += 1
    assert set(strides) == {1, 2, 3}
    assert min(strides.values()) > 400
    assert min(starts) == 0
    assert max(starts) > 30


def test_strides_are_smaller_in_short_videos() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        assert choose_frames(4, NONE, 4, 9, rng).tolist() == [0, 1, 2, 3]
        assert np.diff(choose_frames(9, NONE, 4, 9, rng)).max() <= 2
        assert choose_frames(1, NONE, 1, 9, rng).tolist() == [0]


def test_one_frame_at_least_shows_an_object() -> None:
    for shown in range(12):
        places = set()
        for seed in range(200):
            frames = choose_frames(12, np.array([shown]), 3, 5, np.random.default_rng(seed)).tolist()
            assert shown in frames
            places.add(frames.index(shown))
        assert places == {k for k in range(3) if k <= shown and 2 - k <= 11 - shown}


# What is in a sample


def rendered(at: int) -> Clip:
    return render(SCENES, "train", 0, at)


def find(frame: np.ndarray) -> tuple[int, int]:
    """Video and frame of the rendered split that a picture shows."""
    distances = [[np.abs(image.astype(int) - frame).mean() for image in rendered(at).frames] for at in range(VIDEOS)]
    video, t = np.unravel_index(np.argmin(distances), (VIDEOS, SCENES.frames))
    assert distances[video][t] < 4
    return int(video), int(t)


def test_frames_masks_and_categories_belong_together(shapes: Path) -> None:
    data = open_shapes(shapes, max_stride=4)
    for i in range(6):
        clip = sample(data, i)
        places = [find(frame) for frame in clip.frames]
        (video,) = {video for video, _ in places}
        frames = [t for _, t in places]
        assert frames == sorted(set(frames))
        masks = rendered(video).masks[:, frames]
        seen = masks.any((1, 2, 3))
        assert np.array_equal(clip.masks, masks[seen])
        categories = np.array(rendered(video).categories)[seen]
        assert clip.categories.tolist() == [BASE.index(category) for category in categories]


def test_every_epoch_shows_every_video_once_in_another_order(shapes: Path) -> None:
    data = open_shapes(shapes, frames=1)
    shown = [find(sample(data, i).frames[0])[0] for i in range(4 * VIDEOS)]
    epochs = [tuple(shown[start : start + VIDEOS]) for start in range(0, len(shown), VIDEOS)]
    assert all(sorted(epoch) == list(range(VIDEOS)) for epoch in epochs)
    assert len(set(epochs)) > 1


def test_a_sample_depends_on_its_number_and_the_seed_alone(shapes: Path) -> None:
    data, again, other = (open_shapes(shapes, **VARIED, seed=seed) for seed in (0, 0, 1))
    assert all(same(sample(data, i), sample(again, i)) for i in (7, 2, 0))
    assert not any(same(sample(data, i), sample(other, i)) for i in range(4))
    assert len({sample(data, i).seed for i in range(6)}) == 6


def test_objects_keep_their_colours_and_places_when_varied(folders: Path) -> None:
    settings = {"height": 64, "width": 96, "frames": 4, **VARIED}
    data = open_training_data(TrainingDataConfig(annotations=str(folders / "instances.json"), **settings))
    for i in range(12):
        clip = sample(data, i)
        assert clip.frames.shape == (4, 64, 96, 3)
        for masks, category in zip(clip.masks, clip.categories, strict=True):
            strongest = 0 if data.names[category] == "red box" else 2
            pixels = clip.frames[masks].astype(int)
            assert (pixels.argmax(1) == strongest).mean() > 0.97
        background = clip.frames[~clip.masks.any(0)].astype(int)
        assert (np.ptp(background, axis=1) < 12).mean() > 0.97  # grey
        seen = [mask for mask in clip.masks[clip.categories == 0] for mask in mask if mask.any()]
        lefts = [int(np.flatnonzero(mask.any(0))[0]) for mask in seen if not mask[:, [0, -1]].any()]
        steps = np.diff(lefts)
        assert not len(steps) or np.ptp(steps) <= 2  # one window: 4 pixels a frame stay about equal steps


def test_plain_images_come_as_they_are(folders: Path) -> None:
    config = TrainingDataConfig(annotations=str(folders / "instances.json"), height=64, width=96, frames=6, flip=0)
    clip = sample(open_training_data(config), 0)
    assert clip.categories.tolist() == [0, 1]
    for t in range(6):
        for row, colour in enumerate((RED, BLUE)):
            assert np.array_equal(clip.masks[row, t], scene(t)[row])
            assert (clip.frames[t][scene(t)[row]] == colour).all()


def test_stills_become_clips_in_which_the_window_moves(stills: TrainingData) -> None:
    moved = 0
    for i in range(8):
        clip = sample(stills, i)
        assert clip.frames.shape == (4, 64, 96, 3)
        for masks, category in zip(clip.masks, clip.categories, strict=True):
            colour = RED if stills.names[category] == "red box" else BLUE
            assert (np.abs(clip.frames[masks].astype(int) - colour).max(1) < 60).mean() > 0.85
            moved += len({mask.tobytes() for mask in masks})
    assert moved > 30


def test_clips_of_a_federated_image_say_what_is_known(tmp_path: Path) -> None:
    write_images(tmp_path / "train2017")
    path = write_json(tmp_path / "a.json", lvis_document())
    data = open_training_data(TrainingDataConfig(annotations=path, format="coco", height=64, width=96, min_crop=0.3))
    red, odd, blue = (data.names.index(name) for name in ("red box", "odd thing", "blue box"))
    known = {2: {red: [odd], blue: [red, odd]}, 1: {red: []}}  # of image 5, which has two objects, and of image 6
    seen = Counter[int]()
    for i in range(24):
        clip = sample(data, i)
        assert clip.exhaustive is False
        assert clip.rivals is not None
        image = data.videos[int(_order(2, data.config.seed, i // 2)[i % 2])].id
        for category, names in zip(clip.categories.tolist(), clip.rivals, strict=True):
            assert np.flatnonzero(names).tolist() == known[2 if image == 5 else 1][category]
            seen[category] += 1
        seen[-1] += image == 5 and len(clip.masks) == 1
    assert min(seen[red], seen[blue], seen[-1]) > 0  # with objects outside the window too


def test_all_names_compete_where_everything_is_annotated(stills: TrainingData) -> None:
    assert (sample(stills, 0).rivals, sample(stills, 0).exhaustive) == (None, True)


def test_frames_in_the_midst_of_a_long_video(tmp_path: Path) -> None:
    """Decoding starts at a key frame, not at the beginning; every frame is the right one."""
    write_clip(tmp_path / "a.mp4", frames=48, size=(96, 128), options=H264)
    document = video_document(videos=1, frames=48)
    document["videos"][0] |= {"video": "a.mp4", "height": 96, "width": 128}
    whole = {"size": [96, 128], "counts": [0, 96 * 128]}
    for annotation in document["annotations"]:
        annotation |= {"segmentations": [None] * 48}
    document["annotations"][0]["segmentations"][37] = whole
    document["annotations"][1]["segmentations"][38] = whole
    path = write_json(tmp_path / "a.json", document)
    config = TrainingDataConfig(annotations=path, height=96, width=128, frames=3, max_stride=9, flip=0)
    data = open_training_data(config)
    for i in range(10):
        clip = sample(data, i)
        numbers = [number(frame) for frame in clip.frames]
        assert numbers == sorted(set(numbers))
        shown = {t for t, masks in zip(numbers, clip.masks.any((2, 3)).T, strict=True) if masks.any()}
        assert shown
        assert shown == {37, 38} & set(numbers)


# What goes wrong later


def test_a_video_that_breaks_is_named(shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes, tmp_path / "copy")
    data = open_shapes(tmp_path / "copy", frames=9)
    video = tmp_path / "copy" / json.loads((shapes / "instances.json").read_text())["videos"][1]["video"]
    where = f"^{tmp_path}/copy/instances.json: video 2, {video}: "
    shutil.copy(video, tmp_path / "whole.mp4")
    cut_off(tmp_path / "whole.mp4", video, 0.5)
    with pytest.raises(ValueError, match=where + r"of the frames \[0, 1, .*\] only \[0.*\] can be decoded; repair"):
        [sample(data, i) for i in range(VIDEOS)]
    video.unlink()
    with pytest.raises(ValueError, match=where + "file not found; repair the file or remove the video"):
        [sample(data, i) for i in range(VIDEOS)]


def test_an_image_that_breaks_is_named(tmp_path: Path) -> None:
    write_videos(tmp_path)
    path = write_json(tmp_path / "a.json", video_document())
    data = open_training_data(TrainingDataConfig(annotations=path, height=64, width=96, frames=6))
    image = tmp_path / "v2" / "003.png"
    shutil.copy(image, tmp_path / "whole.png")
    cut_off(tmp_path / "whole.png", image, 0.7)
    with pytest.raises(ValueError, match=f"{path}: video 2, .*: {image} is not an image that can be read"):
        [sample(data, i) for i in (0, 1)]
    shutil.copy(tmp_path / "v1" / "000.png", image)
    assert len(sample(data, 0).frames) == len(sample(data, 1).frames) == 6


# In processes


def test_workers_and_restarts_see_the_same_clips(shapes: Path) -> None:
    data = open_shapes(shapes, **VARIED)
    expected = [[sample(data, 4 * step + i) for i in range(4)] for step in range(4)]
    whole = list(batches(partial(sample, data), Share(first_step=0, last_step=4, batch_size=4), decoders=2))
    shares = [Share(first_step=1, last_step=4, batch_size=4, rank=rank, world_size=2) for rank in (0, 1)]
    first, second = (list(batches(partial(sample, data), share, decoders=1)) for share in shares)
    parts = [a + b for a, b in zip(first, second, strict=True)]
    for steps, wanted in ((whole, expected), (parts, expected[1:])):
        assert len(steps) == len(wanted)
        for batch, clips in zip(steps, wanted, strict=True):
            assert len(batch) == len(clips)
            assert all(same(clip, other) for clip, other in zip(batch, clips, strict=True))
