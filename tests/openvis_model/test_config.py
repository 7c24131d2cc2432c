import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import Tensor

from openvis_model.config import InstFormerConfig, mini, paper
from openvis_model.inst_former import InstFormer
from openvis_model.options import InstClipConfig, RolloutTrackerConfig
from openvis_model.weights.detectron2 import config_from_weights
from tests.openvis_model.weights.original_mask2former import (
    RESNET_CHANNELS,
    Original,
    Sizes,
    swin_b,
    swin_l,
    swin_s,
    swin_t,
)
from tests.words import WORDS


@pytest.mark.parametrize("config", [mini(WORDS), paper(), paper("swin_large")], ids=["mini", "r50", "swin"])
def test_json_round_trip(config: InstFormerConfig) -> None:
    assert InstFormerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_field_that_is_none_is_left_out() -> None:
    """So configs, and the fingerprints of models, are those of before there was such a field."""
    config = mini(WORDS)
    assert "guided" not in config.to_dict()["inst_clip"]
    guided = replace(config, inst_clip=InstClipConfig(guided="head"))
    assert InstFormerConfig.from_dict(guided.to_dict()) == guided
    assert InstFormerConfig.from_dict(config.to_dict() | {"inst_clip": {"guided": None}}) == config


def test_paper_preset_is_the_papers() -> None:
    config = paper()
    assert config.mask_proposal.num_queries == 100
    assert config.mask_proposal.build().hidden_dim == 256
    assert config.clip.model == "ViT-B-32-quickgelu"
    assert config.inst_clip == InstClipConfig(guidance="logits", register=True)
    assert config.rollout_tracker == RolloutTrackerConfig(kind="rnn", token="instance_query")


def test_mini_preset_fits_into_25_mb() -> None:
    parameters = sum(p.numel() for p in InstFormer(mini(WORDS)).parameters())
    assert 4 * parameters < 25e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classifer": "inst_clip"}, "config.classifer: no such field; did you mean 'classifier'"),
        ({"inst_clip": {"guidence": "none"}}, "config.inst_clip.guidence: no such field; did you mean 'guidance'"),
        ({"rollout_tracker": "rnn"}, "config.rollout_tracker: expected fields, got 'rnn'"),
        ({"classifier": "detic"}, "classifier: unknown value 'detic'"),
        ({"short_side": 8}, "short_side.*got 8"),
        ({"inst_clip": {"guidance": "soft"}}, "guidance: unknown value 'soft'"),
        ({"inst_clip": {"guided": "tail"}}, "guided: unknown value 'tail'"),
        ({"classifier_short_side": 16}, "classifier_short_side: expected null, or from 32 pixels .*, got 16"),
        ({"short_side": 64}, r"classifier_short_side: .* to short_side \(64\), .*, got 96"),
    ],
)
@pytest.mark.usefixtures("as_user")
def test_bad_values_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InstFormerConfig.from_dict(mini(WORDS).to_dict() | change)


MASK2FORMER = "mask_proposal.mask2former"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("short_side", "96", "expected int, got '96'"),
        ("short_side", 96.5, "expected int, got 96.5"),
        ("short_side", True, "expected int, got True"),
        ("mask_proposal.freeze_batch_norm", "false", "expected bool, got 'false'"),
        ("clip.words", ["a", 3], r"words\[1\]: expected str, got 3"),
        ("clip.words", "red", "expected a list, got 'red'"),
        ("clip.pixel_mean", [0.5, 0.5], "expected 3 values, got 2"),
        ("clip.pixel_mean", [0.5, 0.5, "0.5"], r"pixel_mean\[2\]: expected float, got '0.5'"),
        ("clip.architecture.vision_cfg.layer", 2, "did you mean 'layers'"),
        (f"{MASK2FORMER}.num_querys", 3, "did you mean 'num_queries'"),
        (f"{MASK2FORMER}.num_queries", 0, "expected at least 1, got 0"),
        (f"{MASK2FORMER}.num_queries", "16", "'num_queries'"),
        (f"{MASK2FORMER}.pre_norm", True, "expected False as published, got True"),
        (f"{MASK2FORMER}.backbone_config.depth", 3, "did you mean 'depths'"),
        (f"{MASK2FORMER}.backbone_config.model_type", "vgg", r"'vgg'; choose from .*'resnet', .*'swin'"),
    ],
)
@pytest.mark.usefixtures("as_user")
def test_bad_values_deep_inside_are_named(field: str, value: object, message: str) -> None:
    values = deepcopy(mini(WORDS).to_dict())
    *parents, name = field.split(".")
    owner = values
    for parent in parents:
        owner = owner[parent]
    owner[name] = value
    with pytest.raises(ValueError, match=rf"{parents[-1] if parents else 'config'}.*{message}"):
        InstFormerConfig.from_dict(values)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("words", [(), "red star"])
def test_a_mini_model_needs_words(words: object) -> None:
    with pytest.raises(ValueError, match="words: expected a tuple of words"):
        mini(words)


def test_what_transformers_writes_is_taken() -> None:
    config = paper("swin_tiny")
    written = replace(config.mask_proposal, architecture=config.mask_proposal.build().to_dict())
    assert replace(config, mask_proposal=written).mask_proposal.num_queries == 100


def test_missing_fields_are_named() -> None:
    values = mini(WORDS).to_dict()
    del values["clip"]
    with pytest.raises(ValueError, match="config: missing clip"):
        InstFormerConfig.from_dict(values)


@pytest.mark.parametrize(
    "change",
    [
        {"classifier": "crop_clip"},
        {"inst_clip": InstClipConfig(guidance="none", register=False)},
        {"inst_clip": InstClipConfig(guidance="binary")},
        {"rollout_tracker": RolloutTrackerConfig(kind="gru")},
        {"rollout_tracker": RolloutTrackerConfig(kind="linear")},
        {"rollout_tracker": RolloutTrackerConfig(kind="mlp", token="query")},
    ],
    ids=str,
)
def test_every_ablation_of_the_paper_runs(change: dict[str, object], frames: Tensor) -> None:
    """Tables 4, 5 and 6: classifier, guidance, register, tracking token and tracker."""
    model = InstFormer(replace(mini(WORDS), **change)).eval()
    first, second = model(frames[:2])
    assert first.instance_tokens.shape == second.instance_tokens.shape == (16, 128)
    assert torch.isfinite(second.instance_tokens).all()
    tracker = model.rollout_tracker
    tokens = first.tracking_tokens(tracker.config.token)
    rollout, hidden = tracker(tokens, tracker.initial_state(16))
    assert rollout.shape == second.tracking_tokens(tracker.config.token).shape
    assert hidden.shape == (16, tracker.hidden_width)


@pytest.mark.parametrize(
    ("backbone", "original", "channels"),
    [
        ("resnet50", torchvision.models.resnet50, RESNET_CHANNELS),
        ("swin_tiny", swin_t, [96, 192, 384, 768]),
        ("swin_small", swin_s, [96, 192, 384, 768]),
        ("swin_base", swin_b, [128, 256, 512, 1024]),
        ("swin_large", swin_l, [192, 384, 768, 1536]),
    ],
)
def test_paper_preset_is_the_released_checkpoints(backbone: str, original: Callable, channels: list[int]) -> None:
    config = paper(backbone).mask_proposal.build()
    with torch.device("meta"):
        released = Original(original(), channels, Sizes(queries=200 if backbone == "swin_large" else 100))
    one = torch.zeros(1)  # seen as every weight: nothing is allocated
    weights = {name: one.as_strided(w.shape, (0,) * w.ndim) for name, w in released.named_weights()}
    assert config.to_dict() == config_from_weights(weights).to_dict()
