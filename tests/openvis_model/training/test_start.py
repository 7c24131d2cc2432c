from pathlib import Path

import pytest
import torch

from openvis_model.config import mini
from openvis_model.inst_former import InstFormer
from openvis_model.options import InstClipConfig, RolloutTrackerConfig
from openvis_model.proposal_networks import NETWORKS
from openvis_model.training.config import StartConfig
from openvis_model.training.start import start_model
from openvis_model.vocabulary import prompt_words
from openvis_model.weights.checkpoint import fingerprint, save_checkpoint
from tests.networks import tiny_transformers, with_proposals

NAMES = ("red star", "blue disc")


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    torch.manual_seed(3)
    save_checkpoint(InstFormer(mini(prompt_words(NAMES))), tmp_path / "checkpoint")
    return str(tmp_path / "checkpoint")


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_preset_starts_the_same_each_time() -> None:
    one, again = (start_model(StartConfig(preset="mini"), NAMES) for _ in range(2))
    other = start_model(StartConfig(preset="mini", seed=1), NAMES)
    assert fingerprint(one) == fingerprint(again) != fingerprint(other)
    assert one.config == mini(prompt_words(NAMES))


def test_a_start_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    start_model(StartConfig(preset="mini"), NAMES)
    assert torch.equal(torch.rand(1), expected)


def test_a_checkpoint_is_taken_as_it_is(checkpoint: str) -> None:
    torch.manual_seed(3)
    expected = fingerprint(InstFormer(mini(prompt_words(NAMES))))
    assert fingerprint(start_model(StartConfig(checkpoint=checkpoint), NAMES)) == expected


def test_parts_come_from_checkpoints(checkpoint: str) -> None:
    source = start_model(StartConfig(checkpoint=checkpoint), NAMES)
    model = start_model(StartConfig(preset="mini", clip=checkpoint, mask_proposal=checkpoint), NAMES)
    assert same(model.text_encoder, source.text_encoder)
    assert same(model.mask_proposal, source.mask_proposal)
    assert not same(model.rollout_tracker, source.rollout_tracker)
    class_token = source.classifier.visual.class_embedding + source.classifier.visual.positional_embedding[0]
    assert torch.equal(model.classifier.instance_tokens[0], class_token)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_folder_of_public_weights_says_what_the_proposal_network_is(network: str, tmp_path: Path) -> None:
    theirs = tiny_transformers(network)
    theirs.save_pretrained(tmp_path)
    model = start_model(StartConfig(preset="mini", mask_proposal=str(tmp_path)), NAMES)
    assert model.config.mask_proposal.network == network
    assert same(model.mask_proposal.network, theirs)
    assert model.classifier.instance_tokens.shape[0] == 7
    assert fingerprint(start_model(StartConfig(preset="mini", mask_proposal=str(tmp_path)), NAMES)) == fingerprint(
        model
    )


def test_a_backbone_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    tiny_transformers("eomt").save_pretrained(tmp_path)
    start = StartConfig(preset="paper", backbone="resnet50", mask_proposal=str(tmp_path))
    with pytest.raises(ValueError, match=r"its network is eomt, the config's mask2former"):
        start_model(start, NAMES)


def test_another_number_of_queries_does_not_fit_what_was_learned(checkpoint: str, tmp_path: Path) -> None:
    tiny_transformers("eomt").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"its num_queries is 7, that of start\.checkpoint 16; start from a preset"):
        start_model(StartConfig(checkpoint=checkpoint, mask_proposal=str(tmp_path)), NAMES)


def test_another_proposal_network_of_the_same_size_takes_the_place(tmp_path: Path) -> None:
    save_checkpoint(with_proposals(mini(prompt_words(NAMES)), "eomt"), tmp_path / "checkpoint")
    source = start_model(StartConfig(checkpoint=str(tmp_path / "checkpoint")), NAMES)
    tiny_transformers("rf_detr").save_pretrained(tmp_path / "rf_detr")
    start = StartConfig(checkpoint=str(tmp_path / "checkpoint"), mask_proposal=str(tmp_path / "rf_detr"))
    model = start_model(start, NAMES)
    assert model.config.mask_proposal.network == "rf_detr"
    assert same(model.classifier, source.classifier)
    assert same(model.rollout_tracker, source.rollout_tracker)


def test_the_activation_of_a_file_is_chosen(checkpoint: str, tmp_path: Path) -> None:
    file = str(Path(checkpoint, "clip.safetensors").rename(tmp_path / "mine.safetensors"))
    with pytest.raises(ValueError, match=r"mine\.safetensors does not say .*start\.clip_quick_gelu"):
        start_model(StartConfig(preset="mini", clip=file), NAMES)
    with pytest.raises(ValueError, match="trained with QuickGELU .*set it to True"):
        start_model(StartConfig(preset="mini", clip=file, clip_quick_gelu=True), NAMES)
    start_model(StartConfig(preset="mini", clip=file, clip_quick_gelu=False), NAMES)


def test_another_tracker_leaves_the_rest(checkpoint: str) -> None:
    source = start_model(StartConfig(checkpoint=checkpoint), NAMES)
    config = RolloutTrackerConfig(kind="gru")
    model = start_model(StartConfig(checkpoint=checkpoint, rollout_tracker=config), NAMES)
    assert model.config.rollout_tracker == config
    assert same(model.classifier, source.classifier)
    assert same(model.mask_proposal, source.mask_proposal)


def test_another_inst_clip_keeps_clip_proposals_and_tracker(checkpoint: str) -> None:
    source = start_model(StartConfig(checkpoint=checkpoint), NAMES)
    config = InstClipConfig(register=False)
    model = start_model(StartConfig(checkpoint=checkpoint, inst_clip=config), NAMES)
    assert model.config.inst_clip == config
    assert same(model.mask_proposal, source.mask_proposal)
    assert same(model.rollout_tracker, source.rollout_tracker)
    assert torch.equal(model.classifier.visual.proj, source.classifier.visual.proj)


def test_another_classifier(checkpoint: str) -> None:
    model = start_model(StartConfig(checkpoint=checkpoint, classifier="crop_clip"), NAMES)
    assert model.config.classifier == "crop_clip"


def test_a_checkpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="nowhere: not a checkpoint folder"):
        start_model(StartConfig(checkpoint="nowhere"), NAMES)


def test_a_variant_of_inst_clip_sees_frames_as_the_checkpoints_does(checkpoint: str) -> None:
    model = start_model(StartConfig(checkpoint=checkpoint, inst_clip=InstClipConfig(guidance="binary")), NAMES)
    assert (model.classifier.short_side, model.short_side) == (96, 128)
