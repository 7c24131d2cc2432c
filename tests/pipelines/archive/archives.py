"""A small archive of Shapes, labelled by the built-in model."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.labelling.config import LabelConfig
from pipelines.labelling.run import LabelSummary, label_videos
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.files import encode_video
from pipelines.shapes.render import draw, render
from pipelines.shapes.scenes import SceneConfig, invent_scene

NAMES = [category.name for category in CATEGORIES]


def write_archive(folder: Path) -> None:
    """Five videos of 12 frames in `videos`, a red striped star in the last of them; all names, and a tenth of them."""
    (folder / "videos").mkdir()
    scene = SceneConfig(frames=12)
    for index in range(4):
        encode_video(folder / "videos" / f"{index}.mp4", render(scene, "novel", 0, index).frames, 8)
    rng = np.random.default_rng(0)
    star = replace(invent_scene(scene, "novel", rng)[0], category=NAMES.index("red striped star"))
    ground = np.full((scene.height, scene.width, 3), 128, np.float32)
    encode_video(folder / "videos" / "star.mp4", draw(ground, [star]).frames, 8)
    for file, names in (("all.txt", NAMES), ("some.txt", NAMES[4::10])):
        (folder / file).write_text("".join(f"{name}\n" for name in names))


def label_archive(folder: Path, output: Path, names: str) -> LabelSummary:
    """Labels it with the names of a file in it."""
    config = LabelConfig(input=str(folder / "videos"), output=str(output), vocabulary=str(folder / names), part_s=0)
    return label_videos(config)
