import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.training.checks import open_training_data
from pipelines.training.data import TrackTable, TrainingDataConfig
from pipelines.training.mixture import Mixture
from tests.pipelines.datasets.training_sets import video_document, write_json, write_videos

TABLE = TrackTable(
    first_track=np.array([0, 2, 2, 3]),
    categories=np.array([1, 0, 1]),
    first_mask=np.array([0, 2, 3, 4]),
    frames=np.array([0, 4, 2, 4]),
    first_character=np.array([0, 1, 3, 6, 7]),
    text=np.frombuffer(b"abbcccd", np.uint8),
)


def test_tracks_of_a_video_and_where_they_are() -> None:
    assert [list(TABLE.tracks(video)) for video in range(3)] == [[0, 1], [], [2]]
    assert [TABLE.shown(video).tolist() for video in range(3)] == [[0, 2, 4], [], [4]]


def test_masks_of_tracks() -> None:
    found = {(n, t): TABLE.counts(n, t) for n in range(3) for t in range(6)}
    assert {key: counts for key, counts in found.items() if counts is not None} == {
        (0, 0): b"a",
        (0, 4): b"bb",
        (1, 2): b"ccc",
        (2, 4): b"d",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 0}, "frames: expected at least 1, got 0"),
        ({"max_stride": 0}, "max_stride: expected at least 1"),
        ({"seed": -1}, "seed: expected at least 0"),
        ({"height": 100}, "height: expected a multiple of 32 pixels, got 100"),
        ({"width": 0}, "width: expected a multiple of 32 pixels, got 0"),
        ({"format": "lvis"}, "format: unknown value 'lvis'; choose one of ytvis, burst, coco"),
        ({"weight": 0}, "weight: expected more than 0, got 0; leave the data set out instead"),
        ({"weight": math.inf}, "weight: expected more than 0, got inf"),
        ({"categories": "novel"}, "categories: unknown value 'novel'; choose one of base, all"),
        ({"min_crop": 0}, "min_crop: expected above 0"),
    ],
)
@pytest.mark.usefixtures("as_user")
def test_settings_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingDataConfig(annotations="a.json", **change)


def test_data_can_be_pickled_and_used_without_torch(tmp_path: Path) -> None:
    """Processes that decode start in a second and stay small."""
    write_videos(tmp_path)
    path = write_json(tmp_path / "a.json", video_document())
    data = open_training_data(TrainingDataConfig(annotations=path, height=64, width=96))
    (tmp_path / "data.pickle").write_bytes(pickle.dumps(Mixture.of([data])))
    script = """if True:
        import pickle, sys
        mixture = pickle.load(open(sys.argv[1], "rb"))
        clip = mixture.sample(0)
        print(clip.frames.shape, "torch" in sys.modules)
    """
    command = [sys.executable, "-c", script, str(tmp_path / "data.pickle")]
    root = str(Path(__file__).parents[3])
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=root)
    assert done.stdout.strip() == "(2, 64, 96, 3) False"
