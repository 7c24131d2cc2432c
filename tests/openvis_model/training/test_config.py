import pytest

from openvis_model.training.config import InstanceObjectiveConfig, StartConfig, TrackingObjectiveConfig


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
