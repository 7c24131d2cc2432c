import numpy as np
import pytest

from openvis_model.training.captioned_image import CaptionedImage

PIXELS = np.zeros((48, 48, 3), dtype=np.uint8)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("pixels", [PIXELS.astype(np.float32), PIXELS[..., 0], PIXELS[..., :2]])
def test_other_pixels_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pixels: expected uint8"):
        CaptionedImage(pixels=pixels, top=0, left=0, captions=())


def test_a_place_outside_of_the_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="top, left.*-8"):
        CaptionedImage(pixels=PIXELS, top=0, left=-8, captions=())
