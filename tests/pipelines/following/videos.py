"""Real videos of Shapes, and where their objects are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco

from openvis_model.exemplars import Box
from pipelines.archive.tables import read_masks
from pipelines.following.config import TrackConfig
from pipelines.following.run import TrackSummary, track_video
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.files import encode_video
from pipelines.shapes.render import draw
from pipelines.shapes.scenes import Actor

NAMES = [category.name for category in CATEGORIES]
FRAMES, FPS = 24, 8
WIDTH, HEIGHT = 128, 96


@dataclass(frozen=True)
class Scene:
    """A video, and the visible pixels of its two objects in each frame."""

    path: Path
    masks: Bool[np.ndarray, "2 T H W"]

    def box(self, frame: int, number: int = 0) -> Box:
        """The box around an object."""
        left, top, width, height = coco.toBbox(self.rle(frame, number))
        return int(left), int(top), int(width), int(height)

    def prompt(self, frame: int, number: int = 0, name: str = "my star") -> str:
        return f"frame {frame}: box {' '.join(map(str, self.box(frame, number)))} = {name}"

    def rle(self, frame: int, number: int = 0) -> dict[str, object]:
        encoded: dict[str, object] = coco.encode(np.asfortranarray(self.masks[number, frame].astype(np.uint8)))
        return encoded


def crossing(path: Path, *, cut: int | None = None) -> Scene:
    """A red striped star and a blue dotted moon pass each other; at `cut`, the view behind them changes."""
    clip = draw(np.full((HEIGHT, WIDTH, 3), 128, np.float32), _actors())
    pictures = clip.frames
    if cut is not None:
        tiles = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.float32)
        other = draw(np.kron(tiles, np.ones((16, 16, 1), np.float32)), _actors())
        pictures = np.concatenate([pictures[:cut], other.frames[cut:]])
    encode_video(path, pictures, FPS)
    return Scene(path, clip.masks)


def _actors() -> list[Actor]:
    way = np.linspace(24.0, 104.0, FRAMES)
    still = np.ones(FRAMES)
    places = (("red striped star", way, 34.0), ("blue dotted moon", way[::-1], 60.0))
    return [
        Actor(category=NAMES.index(name), x=x, y=y * still, size=18 * still, tilt=0 * still) for name, x, y in places
    ]


def track(scene: Scene, output: Path | str, *prompts: str, **options: Any) -> TrackSummary:
    return track_video(TrackConfig(video=str(scene.path), output=str(output), prompt=list(prompts), **options))


def overlaps(scene: Scene, output: Path | str, track_id: int, number: int) -> np.ndarray:
    """IoU of a track with an object in each frame; 0 where the track is not."""
    found = np.zeros(FRAMES)
    for row in read_masks(str(output)).to_pylist():
        if row["track_id"] == track_id:
            rle = {"size": row["rle"]["size"], "counts": row["rle"]["counts"].encode()}
            found[row["frame"]] = coco.iou([rle], [scene.rle(row["frame"], number)], [0])[0, 0]
    return found
