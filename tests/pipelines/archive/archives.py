"""A small archive of Shapes, labelled by the built-in model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from openvis_model.options import VideoTrackerConfig
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.run import LabelSummary, label_videos
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.files import encode_video
from pipelines.shapes.render import draw, render
from pipelines.shapes.scenes import Actor, SceneConfig, invent_scene
from tests.pipelines.video.clips import H264, write_clip

NAMES = [category.name for category in CATEGORIES]
FPS = 8
STRIDE = 2
CUT = 20
TRACKER = VideoTrackerConfig(max_gap=2)


def write_archive(folder: Path) -> None:
    """Five videos in `videos`; `all.txt` with all names, and `some.txt` with a tenth of them.

    Three videos have 40 frames, with a key frame every 8, and `2.mp4` is cut at frame `CUT`; `large.mp4` has 24, which
    the model sees resized; in the 24 of `star.mp4` is a red striped star, whose name is not among the tenth.
    """
    (folder / "videos").mkdir()
    shots = [render(SceneConfig(frames=40), "novel", 0, index).frames for index in (0, 1, 2, 4)]
    scenes = [*shots[:2], np.concatenate([shots[2][:CUT], shots[3][CUT:]])]
    for index, pictures in enumerate(scenes):
        write_clip(
            folder / "videos" / f"{index}.mp4",
            frames=40,
            fps=FPS,
            options=H264,
            draw=lambda number, height, width, pictures=pictures: pictures[number],
        )
    large = SceneConfig(frames=24, height=150, width=226)
    encode_video(folder / "videos" / "large.mp4", render(large, "novel", 0, 3).frames, FPS)
    scene = SceneConfig(frames=24)
    rng = np.random.default_rng(0)
    star = replace(invent_scene(scene, "novel", rng)[0], category=NAMES.index("red striped star"))
    ground = np.full((scene.height, scene.width, 3), 128, np.float32)
    encode_video(folder / "videos" / "star.mp4", draw(ground, [star]).frames, FPS)
    first, *others = NAMES[4::10]
    colour, _, shape = first.split()
    (folder / "all.txt").write_text("\n".join(NAMES))
    (folder / "some.txt").write_text("\n".join((f"{first}, {colour} {shape}", *others)))


def write_star(folder: Path) -> None:
    """`star.png`, a red striped star beside a blue dotted moon, and `star_mask.png`, which is white on the star.

    Size, place and background are others than in `star.mp4`.
    """
    actors = [
        Actor(category=NAMES.index(name), x=np.array([x]), y=np.array([48.0]), size=np.array([19.0]), tilt=np.zeros(1))
        for name, x in (("red striped star", 36.0), ("blue dotted moon", 92.0))
    ]
    clip = draw(np.full((96, 128, 3), 150, np.float32), actors)
    Image.fromarray(clip.frames[0]).save(folder / "star.png")
    Image.fromarray(clip.masks[0, 0].astype(np.uint8) * 255).save(folder / "star_mask.png")


def label_archive(folder: Path, output: Path, names: str, **options: Any) -> LabelSummary:
    """Labels every second frame with the names of a file in the archive."""
    defaults: dict[str, Any] = {
        "input": str(folder / "videos"),
        "vocabulary": str(folder / names),
        "stride": STRIDE,
        "tracker": TRACKER,
        "part_s": 0,
    }
    return label_videos(LabelConfig(output=str(output), **defaults | options))
