"""Finds and tracks objects in two short Shapes clips made on the spot, and prints the tracks.

python -m jobs.demo
"""

import time

import torch

from openvis_model.config import mini
from openvis_model.inst_former import InstFormer
from openvis_model.video_tracker import Track, TrackerState, VideoTracker, VideoTrackerConfig
from openvis_model.vocabulary import Vocabulary, embed_vocabulary, prompt_words
from pipelines.datasets.shapes import render
from pipelines.datasets.shapes_categories import CATEGORIES
from pipelines.datasets.shapes_scenes import SceneConfig

BATCH = 8
"""Frames that go through the model together."""


def main() -> None:
    """Builds the mini model, labels two clips, prints a table for each."""
    names = [category.name for category in CATEGORIES]
    torch.manual_seed(0)
    model = InstFormer(mini(prompt_words(names))).eval()
    print("The mini model is UNTRAINED: every step below is the real one, but masks and names are arbitrary.\n")
    vocabulary = embed_vocabulary(Vocabulary(tuple((name,) for name in names)), model.text_encoder)
    tracker = VideoTracker(VideoTrackerConfig(objectness_threshold=0.0), vocabulary, model.rollout_tracker)
    for index in range(2):
        clip = render(SceneConfig(), "novel", 0, index)
        start = time.monotonic()
        tracks = track_video(model, tracker, torch.from_numpy(clip.frames))
        rate = len(clip.frames) / (time.monotonic() - start)
        objects = ", ".join(CATEGORIES[category].name for category in clip.categories)
        print(f"clip {index}: {len(clip.frames)} frames at {rate:.0f} frames/s; it shows {objects}")
        print_tracks(tracks, vocabulary.names)


def track_video(model: InstFormer, tracker: VideoTracker, frames: torch.Tensor) -> list[Track]:
    """Tracks of a video, frames uint8 [T, H, W, 3], that goes through the model in batches."""
    state, tracks, index = TrackerState(), [], 0
    for batch in frames.split(BATCH):
        for instances in model(batch):
            state, tracked = tracker.step(state, index, instances)
            tracks += tracked.ended
            index += 1
    return tracks + tracker.finish(state)[1]


def print_tracks(tracks: list[Track], names: tuple[str, ...], most: int = 5) -> None:
    """Prints the best-scored tracks."""
    print(f"  {'track':>5}  {'frames':<9}{'score':>6}  name")
    for track in sorted(tracks, key=lambda track: track.top(1)[0][1], reverse=True)[:most]:
        category, score = track.top(1)[0]
        print(f"  {track.track_id:>5}  {track.first_frame:>3}-{track.last_frame:<5}{score:>6.3f}  {names[category]}")
    print()


if __name__ == "__main__":
    main()
