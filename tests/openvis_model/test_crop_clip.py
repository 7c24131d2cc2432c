from dataclasses import replace

import torch
import torch.nn.functional as F

from openvis_model.clip import ClipConfig, build_clip
from openvis_model.config import mini
from openvis_model.crop_clip import CropClip, square_boxes
from tests.words import WORDS


def crop_clip(picture_size: int | None = None) -> CropClip:
    config = replace(mini(WORDS).clip, picture_size=picture_size)
    return CropClip(build_clip(config).eval().visual, short_side=96)


def test_square_boxes_by_hand() -> None:
    """Columns 2-4 and rows 1-6: the box is 3 × 6, its centre (3.5, 4), so the square is (0.5, 1, 6.5, 7)."""
    masks = torch.zeros(2, 8, 10, dtype=torch.bool)
    masks[0, 1:7, 2:5] = True
    boxes = square_boxes(masks)
    assert boxes[0].tolist() == [0.5, 1.0, 6.5, 7.0]
    assert boxes[1].tolist() == [0.0, -1.0, 10.0, 9.0]  # an empty mask: the square around the whole frame


def test_a_crop_shows_the_instance_alone() -> None:
    """A red square on green: the crop is red inside of the mask and CLIP's mean colour, 0, outside."""
    frames = torch.zeros(1, 96, 96, 3, dtype=torch.uint8)
    frames[..., 1] = 255
    frames[:, 32:64, 16:48] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    logits = torch.full((1, 1, 24, 24), -10.0)
    logits[:, :, 8:16, 4:8] = 10.0  # the left half of the red square, in quarter resolution
    model = crop_clip()
    crop = model.crops(frames, logits)[0]
    assert crop.shape == (3, 96, 96)
    red = (torch.tensor([1.0, 0, 0]).view(3, 1, 1) - model.mean) / model.std
    # The mask is 16 pixels wide and 32 high, so the square crop shows it in its middle half.
    assert (crop[:, 8:88, 30:66] - red).abs().max() < 1e-5
    assert crop[:, :, :20].abs().max() == 0
    assert crop[:, :, 76:].abs().max() == 0


def test_embeds_each_crop_with_clip_as_it_is() -> None:
    frames = torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8)
    logits = torch.randn(2, 20, 24, 32)
    model = crop_clip()
    with torch.inference_mode():
        tokens = model(frames, logits, torch.arange(20).expand(2, -1))
        expected = F.normalize(model.visual(model.crops(frames, logits)[23:24]), dim=-1)
    assert tokens.shape == (2, 20, 128)
    assert (tokens[1, 3] - expected[0]).abs().max() < 1e-5


def test_a_crop_is_as_large_as_the_pictures_that_clip_was_trained_with() -> None:
    """48 of 96 pixels: 6 × 6 patches, whose positions are rows and columns 3 to 8 of 12 × 12."""
    model = crop_clip(48)
    crops = model.crops(torch.randint(0, 256, (1, 96, 96, 3), dtype=torch.uint8), torch.randn(1, 3, 24, 24))
    assert crops.shape == (3, 3, 48, 48)
    with torch.inference_mode():
        small = build_clip(mini_clip(48)).eval().visual
        state = model.visual.state_dict()
        class_token, patches = state["positional_embedding"].split([1, 144])
        middle = patches.view(12, 12, -1)[3:9, 3:9].reshape(36, -1)
        small.load_state_dict(state | {"positional_embedding": torch.cat([class_token, middle])})
        assert torch.equal(model.embed(crops), small(crops))


def mini_clip(image_size: int) -> ClipConfig:
    config = mini(WORDS).clip
    tower = config.architecture["vision_cfg"] | {"image_size": image_size}
    return replace(config, architecture=config.architecture | {"vision_cfg": tower})


def test_no_instances() -> None:
    frames = torch.zeros(2, 96, 128, 3, dtype=torch.uint8)
    assert crop_clip()(frames, torch.zeros(2, 0, 24, 32), torch.zeros(2, 0, dtype=torch.long)).shape == (2, 0, 128)
