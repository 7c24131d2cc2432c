"""The 1,000 categories of Shapes: their names, and which of them may be trained on.

None of this may ever change: trainings and evaluations refer to it by category id.
"""

from itertools import product
from typing import NamedTuple

from pipelines.shapes.outlines import OUTLINES

Rgb = tuple[int, int, int]


class Paint(NamedTuple):
    """A colour: the paint of areas, and the shade or tint of textures."""

    main: Rgb
    accent: Rgb


# The first 8 occur in base categories, the last 2 in novel ones only. Backgrounds are greyish and of medium lightness.
PAINTS: dict[str, Paint] = {
    "red": Paint((225, 25, 30), (100, 0, 10)),
    "orange": Paint((255, 130, 0), (255, 215, 150)),
    "yellow": Paint((255, 230, 20), (140, 110, 0)),
    "green": Paint((30, 165, 45), (0, 65, 15)),
    "cyan": Paint((20, 220, 225), (0, 95, 110)),
    "blue": Paint((35, 65, 235), (140, 175, 255)),
    "pink": Paint((255, 130, 190), (175, 35, 105)),
    "white": Paint((248, 248, 248), (40, 40, 45)),
    "purple": Paint((125, 25, 170), (210, 160, 255)),
    "brown": Paint((125, 65, 20), (225, 180, 130)),
}

COLOURS = tuple(PAINTS)

TEXTURES = ("plain", "striped", "dotted", "bordered", "checkered")
"""The first 4 occur in base categories, "checkered" in novel ones only."""


class Category(NamedTuple):
    """A kind of object, e.g. a red striped star."""

    colour: str
    texture: str
    shape: str

    @property
    def name(self) -> str:
        """The three words."""
        return " ".join(self)


CATEGORIES = tuple(Category(*words) for words in product(COLOURS, TEXTURES, OUTLINES))
"""In category id order. Ids within the code count from 0, those in annotation files from 1."""

BASE_COLOURS, BASE_TEXTURES, BASE_OUTLINES = COLOURS[:8], TEXTURES[:4], OUTLINES[:15]


def _stratum(category: Category) -> int:
    """Deals the categories into 5 strata of 200 in which any two attribute values meet equally often."""
    return (COLOURS.index(category.colour) + TEXTURES.index(category.texture) + OUTLINES.index(category.shape)) % 5


def _base() -> tuple[int, ...]:
    """40 categories, none in stratum 0: every shape 2 or 3 times, every colour 5 times, every texture 9 to 12 times."""
    chosen = []
    for number in range(40):
        colour, shape = BASE_COLOURS[number % 8], BASE_OUTLINES[number % 15]
        texture = number % 8 + number // 8
        options = (Category(colour, BASE_TEXTURES[(texture + shift) % 4], shape) for shift in range(2))
        chosen.append(CATEGORIES.index(next(option for option in options if _stratum(option))))
    return tuple(sorted(chosen))


BASE = _base()
"""The 40 category ids that may be trained on."""

NOVEL_SHOWN = tuple(number for number, category in enumerate(CATEGORIES) if _stratum(category) == 0)
"""The 200 novel categories that videos show: few enough for each to get many tracks."""
