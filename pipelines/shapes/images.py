"""Captioned images of Shapes, for the image-text pre-training of the miniature CLIP."""

from dataclasses import dataclass

import numpy as np

from openvis_model.training.captioned_image import CaptionedImage
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig

FRAME_SIZE = (SceneConfig().height, SceneConfig().width)

_SCENE_SEED = 1  # other splits usually have seed 0
_SEEN = 150  # smallest visible area of the captioned object, pixels
_ATTEMPTS = 100


@dataclass(frozen=True, kw_only=True)
class ShapesImagesConfig:
    """Pictures of one object among others.

    Attributes:
        side: side of the square pictures, pixels, a multiple of 8.
        objects: fewest and most objects in a scene; the picture may show parts of several.
        jitter: largest distance of the object from the middle, pixels.
        seed: seed of the pictures.
    """

    side: int = 48
    objects: tuple[int, int] = (2, 6)
    jitter: float = 6.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.side < 16 or self.side % 8 or self.side > min(FRAME_SIZE):
            raise ValueError(f"side: expected a multiple of 8 from 16 to {min(FRAME_SIZE)} pixels, got {self.side}")
        if self.jitter < 0 or self.seed < 0:
            raise ValueError(f"jitter, seed: must not be negative, got {self.jitter} and {self.seed}")


def captioned_image(config: ShapesImagesConfig, number: int) -> CaptionedImage:
    """Makes picture `number`: an object of any of the 1,000 categories near the middle, named by the caption.

    The crop's place in the frame carries no meaning, so the offset of its position embedding is drawn independently.
    """
    rng = np.random.default_rng((config.seed, number))
    scene = SceneConfig(frames=1, objects=config.objects)
    for attempt in range(_ATTEMPTS):
        clip = render(scene, "pretrain", _SCENE_SEED + config.seed, number * _ATTEMPTS + attempt)
        seen = np.flatnonzero(clip.masks.sum((1, 2, 3)) >= _SEEN)
        if len(seen):
            break
    else:
        raise AssertionError(number)
    subject = int(rng.choice(seen))
    rows, columns = np.nonzero(clip.masks[subject, 0])
    (height, width), side = FRAME_SIZE, config.side
    y, x = (axis.mean() - side / 2 + rng.uniform(-config.jitter, config.jitter) for axis in (rows, columns))
    y, x = int(np.clip(y, 0, height - side)), int(np.clip(x, 0, width - side))
    return CaptionedImage(
        pixels=clip.frames[0, y : y + side, x : x + side],
        top=8 * int(rng.integers((height - side) // 8 + 1)),
        left=8 * int(rng.integers((width - side) // 8 + 1)),
        captions=(CATEGORIES[clip.categories[subject]].name,),
    )
