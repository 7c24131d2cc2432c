import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from openvis_model.clip import Clip, build_clip, build_text_encoder
from openvis_model.config import InstFormerConfig, mini
from openvis_model.guided_attention import split_state
from openvis_model.inst_clip import InstClip
from openvis_model.options import InstClipConfig
from openvis_model.training.captioned_image import CaptionedImage
from openvis_model.training.contrastive import ContrastiveObjective, caption_loss, fit_text_tower
from openvis_model.vocabulary import prompt_words
from openvis_model.weights.checkpoint import load_checkpoint
from tests.clips import SIZE, random_clip

NAMES = ("red star", "red heart", "blue star")


@pytest.fixture(params=["plain", "pe", "siglip"])
def config(request: pytest.FixtureRequest) -> InstFormerConfig:
    """The miniature; also with an attention-pooling head, beside a class token or without one."""
    config = mini(prompt_words(NAMES))
    if request.param == "plain":
        return config
    pool = {"timm_pool": "map", "timm_proj": None}
    vision = {"image_size": SIZE, "timm_model_name": f"openvis_{request.param}"}
    architecture = config.clip.architecture | {"vision_cfg": vision | pool}
    return replace(config, clip=replace(config.clip, architecture=architecture, picture_size=None))


@pytest.fixture
def clip(config: InstFormerConfig) -> Clip:
    torch.manual_seed(0)
    return random_clip(config.clip)


@pytest.fixture
def objective(config: InstFormerConfig, clip: Clip) -> ContrastiveObjective:
    return ContrastiveObjective(config, copy.deepcopy(clip), NAMES, (96, 128))


def image(*captions: str, side: int = 48, seed: int = 0, top: int = 16, left: int = 32) -> CaptionedImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return CaptionedImage(pixels=pixels, top=top, left=left, captions=captions)


def test_captions_are_contrasted_with_those_that_the_image_does_not_have() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [5.0, 1.0, 3.0], [1.0, 1.0, 1.0]])
    captions = torch.tensor([[True, False, False], [True, False, True], [False, False, False]])
    one = math.log(1 + math.exp(-1) + math.exp(-2))
    two = math.log(1 + math.exp(-4)) + math.log(1 + math.exp(-2))
    assert caption_loss(logits, captions).item() == pytest.approx(one + two, rel=1e-6)


def test_every_caption_at_once_costs_nothing() -> None:
    assert caption_loss(torch.randn(1, 3), torch.ones(1, 3, dtype=torch.bool)).item() == 0


def test_image_embeddings_are_open_clips(clip: Clip, objective: ContrastiveObjective) -> None:
    objective.eval()
    height, width = objective.grid = objective.tower.positions.shape[:2]  # open_clip does not interpolate positions
    assert height == width
    whole = image(side=height * objective.tower.patch_size, top=0, left=0)
    embedding, _ = objective._embed([whole])
    pixels = (torch.from_numpy(whole.pixels).permute(2, 0, 1)[None] / 255 - objective.mean) / objective.std
    assert torch.allclose(F.normalize(embedding), clip.encode_image(pixels, normalize=True), atol=1e-5)


def test_a_frame_is_embedded_as_inst_clip_does(clip: Clip, objective: ContrastiveObjective) -> None:
    objective.eval()
    pixels = np.random.default_rng(1).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    embedding, _ = objective._embed([CaptionedImage(pixels=pixels, top=0, left=0, captions=())])
    inst_clip = InstClip(InstClipConfig(guidance="none"), clip.visual, num_queries=16, short_side=96).eval()
    frames = torch.from_numpy(pixels)[None]
    instances, _ = inst_clip.encode(frames, torch.zeros(1, 1, 24, 32), torch.zeros(1, 1, dtype=torch.long))
    assert torch.allclose(instances[0], embedding, atol=1e-4)


def test_a_window_has_the_positions_of_its_place(objective: ContrastiveObjective) -> None:
    objective.eval()
    here = image()
    there = image(top=32)
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
    assert isinstance(model.classifier, InstClip)
    saved, trained = (split_state(visual) for visual in (model.classifier.visual, objective.clip.visual))
    assert saved.keys() == trained.keys()
    assert all(torch.equal(saved[name], trained[name]) for name in trained)
    for name, start in objective.tower.starts(objective.tower.guidable[0]).items():
        assert torch.equal(model.classifier.get_parameter(name)[3], start)


@pytest.mark.slow
def test_a_fitted_text_tower_counts_shared_words() -> None:
    torch.manual_seed(0)
    config = mini(prompt_words(NAMES)).clip
    encoder = build_text_encoder(config, build_clip(config))
    assert fit_text_tower(encoder, NAMES, seed=0) < 2e-3
    with torch.no_grad():
        cosines = encoder(["a photo of a red star.", "a photo of a red heart.", "a photo of a blue star.", "star"])
    wanted = torch.tensor([1, 0.5, 0.5, 2**-0.5])
    assert (cosines @ cosines[0] - wanted).abs().max() < 0.1
