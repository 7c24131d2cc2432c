import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from openvis_model.clip import build_clip, build_text_encoder
from openvis_model.config import InstFormerConfig, mini
from openvis_model.inst_clip import InstClip
from openvis_model.options import InstClipConfig
from openvis_model.training.captioned_image import CaptionedImage
from openvis_model.training.contrastive import ContrastiveObjective, caption_loss, fit_text_tower
from openvis_model.vocabulary import prompt_words
from openvis_model.weights.checkpoint import load_checkpoint

NAMES = ("red star", "red heart", "blue star")


@pytest.fixture
def config() -> InstFormerConfig:
    return mini(prompt_words(NAMES))


@pytest.fixture
def objective(config: InstFormerConfig) -> ContrastiveObjective:
    torch.manual_seed(0)
    return ContrastiveObjective(config, build_clip(config.clip), NAMES, (96, 128))


def image(*captions: str, side: int = 48, seed: int = 0) -> CaptionedImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return CaptionedImage(pixels=pixels, top=16, left=40, captions=captions)


def test_captions_are_contrasted_with_those_that_the_image_does_not_have() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [5.0, 1.0, 3.0], [1.0, 1.0, 1.0]])
    captions = torch.tensor([[True, False, False], [True, False, True], [False, False, False]])
    one = math.log(1 + math.exp(-1) + math.exp(-2))
    two = math.log(1 + math.exp(-4)) + math.log(1 + math.exp(-2))
    assert caption_loss(logits, captions).item() == pytest.approx(one + two, rel=1e-6)


def test_every_caption_at_once_costs_nothing() -> None:
    assert caption_loss(torch.randn(1, 3), torch.ones(1, 3, dtype=torch.bool)).item() == 0


def test_image_embeddings_are_open_clips(objective: ContrastiveObjective) -> None:
    objective.eval()
    objective.grid = (12, 12)  # a square frame needs no interpolation, which open_clip does not have
    whole = CaptionedImage(pixels=image(side=96).pixels, top=0, left=0, captions=())
    embedding, _ = objective._embed([whole])
    pixels = (torch.from_numpy(whole.pixels).permute(2, 0, 1)[None] / 255 - objective.mean) / objective.std
    assert torch.allclose(F.normalize(embedding), objective.clip.encode_image(pixels, normalize=True), atol=1e-5)


def test_a_frame_is_embedded_as_inst_clip_does(config: InstFormerConfig, objective: ContrastiveObjective) -> None:
    objective.eval()
    pixels = np.random.default_rng(1).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    embedding, _ = objective._embed([CaptionedImage(pixels=pixels, top=0, left=0, captions=())])
    clip = build_clip(config.clip)
    clip.load_state_dict(objective.clip.state_dict())
    inst_clip = InstClip(InstClipConfig(guidance="none"), clip.visual, num_queries=16, short_side=96).eval()
    frames = torch.from_numpy(pixels)[None]
    _, register = inst_clip.encode(frames, torch.zeros(1, 1, 24, 32), torch.zeros(1, 1, dtype=torch.long))
    assert torch.allclose(register[0], embedding, atol=1e-4)


def test_a_window_has_the_positions_of_its_place(objective: ContrastiveObjective) -> None:
    objective.eval()
    here = image()
    there = CaptionedImage(pixels=here.pixels, top=24, left=40, captions=())
    first, second = (objective._embed([it])[0] for it in (here, there))
    assert (first - second).abs().max() > 1e-4


def test_losses_of_parts_add_up(objective: ContrastiveObjective) -> None:
    objective.eval()
    images = [image("red star", seed=1), image("blue star", "red heart", seed=2), image(seed=3)]
    total = objective.counts(images)
    assert total.tolist() == [3]
    whole = objective(images, total)
    parts = [objective([one], total) for one in images]
    for name, value in whole.items():
        assert sum(float(part[name]) for part in parts) == pytest.approx(float(value), rel=1e-4)


def test_training_teaches_captions_and_leaves_the_text_tower_alone(objective: ContrastiveObjective) -> None:
    images = [image(name, seed=seed) for seed, name in enumerate(NAMES)]
    text = {name: value.clone() for name, value in objective.clip.named_parameters() if not value.requires_grad}
    assert any(name.startswith("transformer.") for name in text)
    assert not any(name.startswith("visual.") for name in text)
    optimizer = torch.optim.AdamW(objective.parameter_groups()["clip"], lr=1e-3)
    counts = objective.counts(images)
    losses = []
    for _ in range(20):
        loss = sum(objective(images, counts).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
    assert all(torch.equal(value, text[name]) for name, value in objective.clip.named_parameters() if name in text)


def test_a_saved_objective_is_a_checkpoint(objective: ContrastiveObjective, tmp_path: Path) -> None:
    objective.save(tmp_path / "model")
    model = load_checkpoint(tmp_path / "model")
    visual = objective.clip.visual
    assert torch.equal(model.classifier.visual.conv1.layers[-1].weight, visual.conv1.layers[-1].weight)
    assert torch.equal(model.classifier.instance_tokens[3], visual.class_embedding + visual.positional_embedding[0])


def test_a_fitted_text_tower_counts_shared_words(config: InstFormerConfig) -> None:
    torch.manual_seed(0)
    clip = build_clip(config.clip)
    encoder = build_text_encoder(config.clip, clip)
    assert fit_text_tower(encoder, NAMES, seed=0) < 2e-3
    with torch.no_grad():
        cosines = encoder(["a photo of a red star.", "a photo of a red heart.", "a photo of a blue star.", "star"])
    wanted = torch.tensor([1, 0.5, 0.5, 2**-0.5])
    assert (cosines @ cosines[0] - wanted).abs().max() < 0.1
