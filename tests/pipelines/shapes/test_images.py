import numpy as np
import pytest

from pipelines.shapes.categories import BASE, CATEGORIES, PAINTS
from pipelines.shapes.images import ShapesImagesConfig, captioned_image


def test_an_image_follows_from_its_number() -> None:
    config = ShapesImagesConfig()
    one, again, other = (captioned_image(config, number) for number in (5, 5, 6))
    assert np.array_equal(one.pixels, again.pixels)
    assert (one.captions, one.top, one.left) == (again.captions, again.top, again.left)
    assert not np.array_equal(one.pixels, other.pixels)
    assert not np.array_equal(one.pixels, captioned_image(ShapesImagesConfig(seed=1), 5).pixels)


def test_the_middle_shows_what_the_caption_says() -> None:
    by_name = {category.name: category for category in CATEGORIES}
    right = 0
    for number in range(60):
        image = captioned_image(ShapesImagesConfig(objects=(1, 1), jitter=0), number)
        middle = image.pixels[12:36, 12:36].reshape(-1, 1, 3).astype(float)
        paints = np.array([[paint.main, paint.accent] for paint in PAINTS.values()]).reshape(1, -1, 3)
        nearest = np.abs(middle * 1.06 - paints).sum(-1)
        colour = list(PAINTS).index(by_name[image.captions[0]].colour)
        right += bool((nearest.min(0).reshape(-1, 2).min(1).argsort()[:3] == colour).any())
    assert right >= 50


def test_all_categories_have_images_and_places_vary() -> None:
    config = ShapesImagesConfig()
    images = [captioned_image(config, number) for number in range(200)]
    assert {image.pixels.shape for image in images} == {(48, 48, 3)}
    names = {image.captions[0] for image in images}
    assert len(names) > 150
    assert len(names - {CATEGORIES[number].name for number in BASE}) > 130
    assert {image.top for image in images} == set(range(0, 49, 8))
    assert {image.left for image in images} == set(range(0, 81, 8))


@pytest.mark.parametrize(("field", "value"), [("side", 44), ("side", 104), ("side", 8), ("jitter", -1.0), ("seed", -1)])
def test_bad_numbers_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{field}.*{value}"):
        ShapesImagesConfig(**{field: value})
