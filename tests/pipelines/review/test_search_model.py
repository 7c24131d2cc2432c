import io

import numpy as np
import pytest
from PIL import Image

from pipelines.review.search_model import SearchModel
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig


@pytest.fixture(scope="module")
def model() -> SearchModel:
    return SearchModel(None)


def test_texts_are_embedded_once(model: SearchModel) -> None:
    vector = model.embed_text("red striped star")
    assert abs(np.linalg.norm(vector) - 1) < 1e-4
    assert model.embed_text("red striped star") is vector
    both = model.embed_text("red striped star, blue dotted moon")
    assert vector @ both > 0.5
    with pytest.raises(ValueError, match="^text: ' ' has an empty word"):
        model.embed_text(" ")


def test_the_object_of_an_image_is_embedded(model: SearchModel) -> None:
    """A picture of a Shapes video is nearer to the names of its objects than to others, on average."""
    clip = render(SceneConfig(frames=2), "novel", 0, 1)
    file = io.BytesIO()
    Image.fromarray(clip.frames[0]).save(file, "PNG")
    vector = model.embed_image(file.getvalue())
    assert abs(np.linalg.norm(vector) - 1) < 1e-4
    shown = [CATEGORIES[category].name for category in clip.categories]
    others = [category.name for category in CATEGORIES[::40] if category.name not in shown]
    similar, different = (max(float(vector @ model.embed_text(name)) for name in names) for names in (shown, others))
    assert similar > different


def test_what_is_no_image_is_named(model: SearchModel) -> None:
    with pytest.raises(ValueError, match="^image: is not a readable picture; give a JPEG, PNG or WebP"):
        model.embed_image(b"<svg/>")
    file = io.BytesIO()
    Image.new("RGB", (96, 64), (128, 128, 128)).save(file, "PNG")
    with pytest.raises(ValueError, match="^image: shows no object"):
        model.embed_image(file.getvalue())
