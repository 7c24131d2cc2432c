from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from openvis_model.config import InstFormerConfig
from openvis_model.dead_leaves import OBJECTS, PICTURES
from openvis_model.exemplars import CheckedPicture, PictureContent, PictureExemplar
from openvis_model.inst_former import InstFormer
from openvis_model.picture_encoder import PictureEncoder
from openvis_model.weights.folded_model import load, load_picture_encoder
from tests.networks import random_adapters


@pytest.fixture(scope="module")
def encoder() -> PictureEncoder:
    return load_picture_encoder()


def exemplar(pixels: torch.Tensor, mask: np.ndarray | None = None) -> PictureExemplar:
    coverage = None if mask is None else (mask * 255).astype(np.uint8)
    content = PictureContent(pixels.numpy(), coverage, "")
    return PictureExemplar("cup.png", place="line 2", content=CheckedPicture("", lambda: content))


def test_a_mask_is_embedded_as_inst_clip_embeds_it(encoder: PictureEncoder, frames: torch.Tensor) -> None:
    """With each query's token, and the mean of them."""
    mask = torch.zeros(96, 128)
    mask[24:64, 40:90] = 1
    model = load()
    queries = torch.arange(encoder.classifier.num_queries)
    logits = (mask * 40 - 20).expand(1, len(queries), -1, -1)
    with torch.inference_mode():
        expected = F.normalize(model.classifier(frames[:1], logits, queries[None])[0].mean(0), dim=-1)
    embedding = encoder.embed(exemplar(frames[0], mask.numpy()))
    assert embedding @ expected > 0.999
    assert float(embedding.norm()) == pytest.approx(1)
    assert embedding @ encoder.embed(exemplar(frames[0])) < 0.999
    of_whole_model = PictureEncoder(model.classifier, short_side=model.short_side)
    assert torch.equal(embedding, of_whole_model.embed(exemplar(frames[0], mask.numpy())))


def test_all_of_a_picture_is_clips_embedding_of_it(mini_config: InstFormerConfig, frames: torch.Tensor) -> None:
    """Without training, an instance token without guidance is CLIP's class token."""
    classifier = InstFormer(mini_config).classifier
    embedding = PictureEncoder(classifier, short_side=96).embed(exemplar(frames[0]))
    queries = torch.zeros(1, 1, dtype=torch.long)
    with torch.inference_mode():
        expected = classifier(frames[:1], torch.zeros(1, 1, 24, 32), queries)[0, 0]
    torch.testing.assert_close(embedding, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["inst_clip", "crop_clip"])
def test_every_classifier_embeds_pictures(mini_config: InstFormerConfig, frames: torch.Tensor, kind: str) -> None:
    classifier = InstFormer(replace(mini_config, classifier=kind)).classifier
    if kind == "inst_clip":
        random_adapters(classifier)
    encoder = PictureEncoder(classifier, short_side=96)
    box = np.zeros((96, 128), np.float32)
    box[8:40, 8:40] = 1
    one, other = encoder.embed(exemplar(frames[0], box)), encoder.embed(exemplar(frames[0], box[:, ::-1].copy()))
    assert one.norm() == pytest.approx(1)
    assert not torch.allclose(one, other)


def test_the_reference_is_many_objects_and_always_the_same(encoder: PictureEncoder) -> None:
    reference = encoder.reference()
    assert PICTURES * OBJECTS * 0.8 < len(reference) <= PICTURES * OBJECTS
    assert torch.equal(reference, load_picture_encoder().reference())


def test_an_object_that_the_model_cannot_see_is_told(encoder: PictureEncoder, frames: torch.Tensor) -> None:
    mask = np.zeros((96, 128), np.float32)
    mask[5, 5] = 1
    message = r"^line 2: cup.png: the object is too small .* 128 pixels .*; crop the picture"
    with pytest.raises(ValueError, match=message):
        encoder.embed(exemplar(frames[0], mask))


def test_broken_weights_are_told(mini_config: InstFormerConfig, frames: torch.Tensor) -> None:
    classifier = InstFormer(mini_config).classifier
    torch.nn.init.constant_(classifier.instance_tokens, torch.nan)
    with pytest.raises(ValueError, match="its instance tokens are NaN"):
        PictureEncoder(classifier, short_side=96).embed(exemplar(frames[0]))
