import pickle
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from openvis_model.config import InstFormerConfig
from openvis_model.frame_result import FrameResult
from openvis_model.inst_former import InstFormer
from openvis_model.options import AssociationConfig, VideoTrackerConfig
from openvis_model.proposal_networks import NETWORKS
from openvis_model.track import Track
from openvis_model.video_frames import Frames
from openvis_model.video_segmenter import VideoSegmenter
from openvis_model.video_state import VideoState
from openvis_model.video_tracker import NO_TRACK, TrackerState, VideoTracker
from openvis_model.vocabulary import Vocabulary, VocabularyEmbedding
from openvis_model.weights.checkpoint import save_checkpoint
from openvis_model.weights.folded_model import load
from tests.networks import with_proposals
from tests.pipelines.archive.archives import write_star
from tests.words import NAMES

SETTINGS = VideoTrackerConfig(association=AssociationConfig(min_similarity=0.5), objectness_threshold=0.3, max_gap=1)
"""Tracks of the untrained model begin, pause and end."""


@pytest.fixture
def segmenter(mini_model: InstFormer) -> VideoSegmenter:
    return VideoSegmenter(mini_model, NAMES, tracker=SETTINGS, batch_size=2)


def columns(frame: FrameResult) -> tuple[Any, ...]:
    return (
        frame.index,
        frame.track_ids.tolist(),
        frame.category_ids.tolist(),
        frame.scores.tolist(),
        frame.objectness.tolist(),
        frame.masks,
        [row(track) for track in frame.ended],
    )


def row(track: Track) -> tuple[Any, ...]:
    fields = (track.track_id, track.top, track.first_frame, track.last_frame, track.frames, track.objectness)
    return (*fields, track.embedding.tolist())


def rows(segmenter: VideoSegmenter, frames: Any) -> tuple[list[Any], list[Any]]:
    results = [columns(frame) for frame in segmenter.track(frames)]
    return results, [row(track) for track in segmenter.finish()]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_checkpoint_with_each_proposal_network_tracks(
    network: str, mini_config: InstFormerConfig, frames: torch.Tensor, tmp_path: Path
) -> None:
    """Of random weights, every proposal that has pixels is a track; masks have the size of the frame."""
    save_checkpoint(with_proposals(mini_config, network), tmp_path / "model")
    every = VideoTrackerConfig(objectness_threshold=0, association=AssociationConfig(min_similarity=-1))
    segmenter = VideoSegmenter(load(tmp_path / "model"), NAMES, tracker=every, objectness_floor=0)
    results = list(segmenter.track(frames[:, :72]))
    assert {result.masks.size for result in results} == {(72, 128)}
    assert sum(len(result.track_ids) for result in results) > 0
    assert all(0 <= track.objectness <= 1 and track.category in NAMES for track in segmenter.finish())


def test_it_is_the_model_and_the_tracker(
    segmenter: VideoSegmenter, mini_model: InstFormer, vocabulary: VocabularyEmbedding, frames: torch.Tensor
) -> None:
    tracker = VideoTracker(SETTINGS, vocabulary, mini_model.rollout_tracker)
    state, ended, found = TrackerState(), list[Track](), list(segmenter.track(frames))
    seen = [instances for part in frames.split(2) for instances in mini_model(part, objectness_floor=0.3)]
    assert len(found) == len(seen) == 5
    for index, (frame, instances) in enumerate(zip(found, seen, strict=True)):
        state, tracked = tracker.step(state, index, instances)
        ended += tracked.ended
        expected = {
            int(track_id): instances.masks.counts[i]
            for i, track_id in enumerate(tracked.track_ids)
            if track_id != NO_TRACK
        }
        assert frame.track_ids.tolist() == sorted(expected)
        assert dict(zip(frame.track_ids.tolist(), frame.masks.counts, strict=True)) == expected
        assert frame.categories == tuple(NAMES[i] for i in frame.category_ids)
    ended += tracker.finish(state)[1]
    assert [row(track) for track in segmenter.finish()] == [row(t) for t in sorted(ended, key=lambda t: t.track_id)]
    assert len(ended) > 3


def test_frames_come_in_any_form(segmenter: VideoSegmenter, frames: torch.Tensor) -> None:
    expected = rows(segmenter, frames)
    pixels = frames.numpy()
    assert rows(segmenter, pixels) == expected
    assert rows(segmenter, iter(pixels)) == expected
    assert rows(segmenter, [frames[:2], frames[2], frames[3], pixels[4:]]) == expected
    results = [columns(frame) for part in (pixels[:2], pixels[2:]) for frame in segmenter.track(part)]
    assert (results, [row(track) for track in segmenter.finish()]) == expected


def test_indices_are_those_of_the_video(segmenter: VideoSegmenter, frames: torch.Tensor) -> None:
    index = np.array([3, 5, 6, 9, 12])
    found = list(segmenter.track(Frames(pixels=frames, index=index)))
    assert [frame.index for frame in found] == index.tolist()
    assert [frame.index for frame in segmenter.track(frames[:2])] == [13, 14]
    with pytest.raises(
        ValueError, match=r"frames.index: expected ascending indices after 14, got \[14, 15\]; call fin"
    ):
        next(segmenter.track(Frames(pixels=frames[:2], index=np.array([14, 15]))))
    assert {track.first_frame for track in segmenter.finish()} >= {3}


def test_masks_have_the_size_of_the_video(segmenter: VideoSegmenter, frames: torch.Tensor) -> None:
    for frame in segmenter.track(Frames(pixels=frames, size=(192, 256))):
        assert frame.masks.size == (192, 256)
    assert segmenter.working_size(1080, 1920) == (128, 224)


def test_synonyms(mini_model: InstFormer) -> None:
    synonyms = [("red star", "striped star"), "disc, blue disc"]
    segmenter = VideoSegmenter(mini_model, synonyms)
    assert segmenter.vocabulary == Vocabulary((("red star", "striped star"), ("disc", "blue disc")))
    assert VideoSegmenter(mini_model, segmenter.vocabulary).vocabulary is segmenter.vocabulary


def test_one_segmenter_serves_many_videos(segmenter: VideoSegmenter, frames: torch.Tensor) -> None:
    expected = rows(segmenter, frames)
    wide = torch.cat([frames, frames], dim=2)
    assert [columns(frame) for frame in segmenter.track(wide)]
    segmenter.state = VideoState()  # drops that video
    assert rows(segmenter, frames) == expected


@pytest.mark.parametrize("taken", [2, 4])
def test_a_video_resumes_from_its_pickled_state(segmenter: VideoSegmenter, frames: torch.Tensor, taken: int) -> None:
    expected = rows(segmenter, frames)
    first = [columns(frame) for frame in segmenter.track(frames[:taken])]
    state = pickle.loads(pickle.dumps(segmenter.state))
    segmenter.finish()
    segmenter.state = state
    rest, tracks = rows(segmenter, frames[taken:])
    assert (first + rest, tracks) == expected


def test_state_counts_the_frames_that_were_yielded(segmenter: VideoSegmenter, frames: torch.Tensor) -> None:
    """The model has seen the second frame of the batch, but its result was not asked for."""
    stream = segmenter.track(frames)
    next(stream)
    assert segmenter.state.tracker.frame == 0


RESUME = """
import pickle, sys, torch
import openvis_model as openvis
torch.set_num_threads(1)
folder, taken = sys.argv[1], int(sys.argv[2])
names, settings, frames = pickle.load(open(f"{folder}/given", "rb"))
segmenter = openvis.VideoSegmenter(openvis.load(f"{folder}/model"), names, tracker=settings, batch_size=2)
assert segmenter.resume(f"{folder}/state") == taken - 1
pickle.dump((list(segmenter.track(frames[taken:])), segmenter.finish()), open(f"{folder}/results", "wb"))
"""


def test_a_video_resumes_in_another_process(mini_model: InstFormer, frames: torch.Tensor, tmp_path: Path) -> None:
    save_checkpoint(mini_model, tmp_path / "model")
    segmenter = VideoSegmenter(load(tmp_path / "model"), NAMES, tracker=SETTINGS, batch_size=2)
    expected = rows(segmenter, frames)
    first = [columns(frame) for frame in segmenter.track(frames[:4])]
    assert any(ended for *_, ended in first)
    segmenter.save(tmp_path / "state")
    (tmp_path / "given").write_bytes(pickle.dumps((NAMES, SETTINGS, frames)))
    subprocess.run([sys.executable, "-c", RESUME, str(tmp_path), "4"], check=True)
    rest, tracks = pickle.loads((tmp_path / "results").read_bytes())
    assert (first + [columns(frame) for frame in rest], [row(track) for track in tracks]) == expected


def test_another_models_state_is_refused(
    segmenter: VideoSegmenter, mini_config: InstFormerConfig, mini_model: InstFormer, tmp_path: Path
) -> None:
    segmenter.save(tmp_path / "state")
    others = {
        "model": VideoSegmenter(InstFormer(mini_config), NAMES, tracker=SETTINGS),
        "vocabulary": VideoSegmenter(mini_model, NAMES[:2], tracker=SETTINGS),
        "setting": VideoSegmenter(mini_model, NAMES, tracker=replace(SETTINGS, max_gap=2)),
    }
    for name, other in others.items():
        with pytest.raises(ValueError, match=f"state: the video was segmented with another {name}"):
            other.resume(tmp_path / "state")


def test_a_frame_of_another_size_is_refused(segmenter: VideoSegmenter, frames: torch.Tensor) -> None:
    found = segmenter.track([*frames[:3], frames[3][:64]])
    assert [next(found).index for _ in range(3)] == [0, 1, 2]
    message = r"frame 3 has height and width \(64, 128\), the frames before it \(96, 128\); resize it, or call finish"
    with pytest.raises(ValueError, match=message):
        next(found)
    assert segmenter.state.tracker.frame == 2


@pytest.mark.parametrize("empty", [(), iter(())])
def test_a_video_without_frames_is_refused(segmenter: VideoSegmenter, empty: Iterable[Any]) -> None:
    with pytest.raises(ValueError, match="frames: the video has none; check that its file"):
        list(segmenter.track(empty))


def test_nothing_is_left_when_the_rest_of_a_video_is_empty(segmenter: VideoSegmenter, frames: torch.Tensor) -> None:
    list(segmenter.track(frames[:2]))
    assert list(segmenter.track([])) == []


def test_finish_needs_frames(segmenter: VideoSegmenter, frames: torch.Tensor) -> None:
    list(segmenter.track(frames[:2]))
    segmenter.finish()
    with pytest.raises(ValueError, match=r"finish: no frame was taken in since the last finish\(\); results of track"):
        segmenter.finish()


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "vocabulary: no categories"),
        (["red star", ""], "category 1 has an empty name"),
        (["red star", "Red  star"], "'Red star' stands twice"),
        ("red star", r"names: expected a sequence of categories, got the text 'red star'; write \['red star'\]"),
    ],
)
def test_bad_names_are_refused(mini_model: InstFormer, names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoSegmenter(mini_model, names)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"top": 0}, "top: expected at least 1, got 0"),
        (
            {"objectness_floor": 0.6},
            "objectness_floor: expected 0 to the tracker's objectness_threshold .0.5., got 0.6",
        ),
    ],
)
def test_bad_settings_are_refused(mini_model: InstFormer, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoSegmenter(mini_model, NAMES, **settings)


@pytest.mark.usefixtures("as_user")
def test_frames_are_checked_at_once(segmenter: VideoSegmenter) -> None:
    """Not when the first result is asked for."""
    with pytest.raises(ValueError, match="expected uint8 values 0-255, got torch.float64"):
        segmenter.track(np.zeros((2, 96, 128, 3)))


@pytest.mark.parametrize(("threshold", "floor"), [(0.3, 0.3), (0.5, 0.5), (0.8, 0.5)])
def test_the_floor_is_that_of_labelling(mini_model: InstFormer, threshold: float, floor: float) -> None:
    settings = VideoTrackerConfig(objectness_threshold=threshold)
    assert VideoSegmenter(mini_model, NAMES, tracker=settings).objectness_floor == floor


def test_pictures_are_names(tmp_path: Path) -> None:
    """Of a star and a moon, the one that a picture shows is found; a saved state belongs to the picture."""
    write_star(tmp_path)
    frames = np.asarray(Image.open(tmp_path / "star.png"))[None, :, ::-1].copy()
    names = ["orange plain heart", f"mine: {tmp_path}/star.png mask {tmp_path}/star_mask.png", "blue dotted moon"]
    segmenter = VideoSegmenter(load(), names)
    list(segmenter.track(frames))
    segmenter.save(tmp_path / "state")
    assert sorted(track.category for track in segmenter.finish()) == ["blue dotted moon", "mine"]
    segmenter.resume(tmp_path / "state")
    Image.fromarray(frames[0]).save(tmp_path / "star.png")
    with pytest.raises(ValueError, match="vocabulary"):
        VideoSegmenter(load(), names).resume(tmp_path / "state")
    with pytest.raises(ValueError, match="category 1: track: v/1: was not read; call read_tracks"):
        VideoSegmenter(load(), ["red star", "mine: track: v/1"])
