from collections import Counter
from itertools import combinations

from pipelines.shapes import categories as world
from pipelines.shapes.categories import BASE, CATEGORIES, NOVEL_SHOWN
from pipelines.shapes.outlines import OUTLINES


def test_a_thousand_unique_names_of_three_known_words() -> None:
    names = [category.name for category in CATEGORIES]
    assert len(set(names)) == len(names) == 1000
    assert "red striped star" in names
    assert all(len(name.split(" ")) == 3 for name in names)
    words = (*world.COLOURS, *world.TEXTURES, *OUTLINES)
    assert {word for name in names for word in name.split(" ")} == set(words)
    assert len(set(words)) == len(words) == 10 + 5 + 20


def test_base_covers_its_attributes_and_no_others() -> None:
    assert len(set(BASE)) == 40
    colours, textures, shapes = (Counter(values) for values in zip(*(CATEGORIES[c] for c in BASE), strict=True))
    assert set(colours) == set(world.BASE_COLOURS)
    assert set(textures) == set(world.BASE_TEXTURES)
    assert set(shapes) == set(world.BASE_OUTLINES)
    assert (len(colours), len(textures), len(shapes)) == (8, 4, 15)
    assert set(colours.values()) == {5}
    assert set(shapes.values()) == {2, 3}
    assert set(textures.values()) <= {9, 10, 11, 12}


def test_partitions_are_fixed_for_ever() -> None:
    assert len(CATEGORIES) == 1000
    assert (sum(BASE), sum(NOVEL_SHOWN)) == (15455, 99900)
    assert CATEGORIES[0].name == "red plain circle"
    assert CATEGORIES[999].name == "brown checkered clover"


def test_shown_novel_categories_are_balanced() -> None:
    assert len(NOVEL_SHOWN) == 200
    assert not set(NOVEL_SHOWN) & set(BASE)
    for a, b in combinations(range(3), 2):
        pairs = Counter((CATEGORIES[c][a], CATEGORIES[c][b]) for c in NOVEL_SHOWN)
        assert len(set(pairs.values())) == 1
    unseen = {*world.COLOURS[8:], *world.TEXTURES[4:], *OUTLINES[15:]}
    assert 0.4 < sum(not unseen & {*CATEGORIES[c]} for c in NOVEL_SHOWN) / 200 < 0.6


def test_colours_are_far_apart() -> None:
    for a, b in combinations(world.PAINTS.values(), 2):
        assert sum(abs(x - y) for x, y in zip(a.main, b.main, strict=True)) > 90
    for paint in world.PAINTS.values():
        assert abs(sum(paint.main) - sum(paint.accent)) > 120
