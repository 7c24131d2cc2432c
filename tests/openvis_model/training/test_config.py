from math import inf, nan

import pytest
from transformers import Mask2FormerConfig

from openvis_model.training.config import (
    InstanceObjectiveConfig,
    SetCriterionConfig,
    StartConfig,
    TrackingObjectiveConfig,
)


def test_defaults_of_the_set_loss_are_mask2formers() -> None:
    ours, theirs = SetCriterionConfig(), Mask2FormerConfig()
    assert ours.num_points == theirs.train_num_points
    for name in (
        "oversample_ratio",
        "importance_sample_ratio",
        "class_weight",
        "mask_weight",
        "dice_weight",
        "no_object_weight",
    ):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_points", 0),
        ("oversample_ratio", 0.5),
        ("oversample_ratio", inf),
        ("importance_sample_ratio", 1.5),
        ("importance_sample_ratio", -0.1),
        ("class_weight", -1.0),
        ("mask_weight", nan),
        ("dice_weight", inf),
        ("no_object_weight", 0.0),
        ("unknown_weight", 0.0),
    ],
)
def test_bad_values_of_the_set_loss_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field}: expected .* to .*, got {value}"):
        SetCriterionConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"), [("margin", 1.5), ("margin_weight", -1.0), ("classification_weight", -2.0)]
)
def test_bad_weights_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{field}.*{value}"):
        InstanceObjectiveConfig(**{field: value})


@pytest.mark.usefixtures("as_user")
def test_an_unknown_matching_is_named() -> None:
    with pytest.raises(ValueError, match="matching: unknown value 'video'; choose from .*'frame', 'clip'"):
        InstanceObjectiveConfig(matching="video")


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature: expected more than 0, got 0"):
        TrackingObjectiveConfig(temperature=0)


@pytest.mark.usefixtures("as_user")
def test_unknown_candidates_are_named() -> None:
    with pytest.raises(ValueError, match="candidates: unknown value 'none'; choose from .*'all', 'annotated'"):
        TrackingObjectiveConfig(candidates="none")


@pytest.mark.parametrize("values", [{}, {"checkpoint": "a", "preset": "mini"}])
def test_one_start_is_needed(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either checkpoint or preset"):
        StartConfig(**values)


@pytest.mark.usefixtures("as_user")
def test_an_unknown_preset_is_named() -> None:
    with pytest.raises(ValueError, match="preset: unknown value 'tiny'"):
        StartConfig(preset="tiny")


def test_an_activation_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^clip_quick_gelu: got True without weights"):
        StartConfig(preset="paper", clip_quick_gelu=True)
