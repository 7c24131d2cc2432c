import json
from dataclasses import replace

import pytest

from openvis_model.config import InstFormerConfig, mini, paper
from openvis_model.inst_clip import InstClipConfig
from openvis_model.rollout_tracker import RolloutTrackerConfig
from tests.conftest import WORDS


@pytest.mark.parametrize("config", [mini(WORDS), paper(), paper("swin_large")], ids=["mini", "r50", "swin"])
def test_json_round_trip(config: InstFormerConfig) -> None:
    assert InstFormerConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_paper_preset_is_the_papers() -> None:
    config = paper()
    assert config.mask_proposal.num_queries == 100
    assert config.mask_proposal.build().hidden_dim == 256
    assert config.clip.model == "ViT-B-32-quickgelu"
    assert config.inst_clip == InstClipConfig(guidance="logits", register=True)
    assert config.rollout_tracker == RolloutTrackerConfig(kind="rnn", token="instance_query")


def test_mini_preset_fits_into_25_mb() -> None:
    from openvis_model.inst_former import InstFormer

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
    ],
)
@pytest.mark.usefixtures("as_user")
def test_bad_values_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InstFormerConfig.from_dict(mini(WORDS).to_dict() | change)


def test_missing_fields_are_named() -> None:
    values = mini(WORDS).to_dict()
    del values["clip"]
    with pytest.raises(ValueError, match="config: missing clip"):
        InstFormerConfig.from_dict(values)


def test_every_ablation_of_the_paper_is_a_value() -> None:
    """Tables 4, 5 and 6: classifier, guidance, register, tracking token and tracker."""
    config = mini(WORDS)
    for change in (
        {"classifier": "crop_clip"},
        {"inst_clip": InstClipConfig(guidance="none", register=False)},
        {"inst_clip": InstClipConfig(guidance="binary")},
        {"rollout_tracker": RolloutTrackerConfig(kind="mlp", token="query")},
    ):
        assert replace(config, **change) != config
