import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    EomtImageProcessor,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    RfDetrForObjectDetection,
    RfDetrImageProcessor,
)

from openvis_model.config import InstFormerConfig
from openvis_model.proposal_networks import NETWORKS, build_mask_proposal
from openvis_model.weights.pretrained_proposals import load_mask_proposal
from tests.hub import PROPOSAL_WEIGHTS, PROPOSALS, Files
from tests.networks import TINY_PROPOSALS, TINY_RF_DETR, tiny_transformers


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_says_which_network_it_is(name: str, tmp_path: Path) -> None:
    theirs = tiny_transformers(name)
    theirs.save_pretrained(tmp_path)
    loaded = load_mask_proposal(tmp_path)
    assert loaded.config.network == name
    assert type(loaded.network) is type(theirs)
    assert loaded.config.num_queries == 7
    rebuilt = build_mask_proposal(loaded.config, short_side=64).network
    rebuilt.load_state_dict(loaded.network.state_dict())
    for key, value in theirs.state_dict().items():
        assert torch.equal(rebuilt.state_dict()[key], value), key
    frames = torch.randint(0, 256, (1, 48, 64, 3), dtype=torch.uint8)
    networks = (theirs, rebuilt.eval())
    ours = [build_mask_proposal(loaded.config, short_side=64, network=each).eval()(frames) for each in networks]
    assert torch.equal(ours[0].mask_logits, ours[1].mask_logits)


def test_the_config_is_the_same_wherever_it_was_written(tmp_path: Path) -> None:
    for name in ("one", "two"):
        tiny_transformers("eomt").save_pretrained(tmp_path / name)
    file = tmp_path / "two/config.json"
    other = {"transformers_version": "5.0.0", "_name_or_path": "elsewhere", "dtype": "float32"}
    file.write_text(json.dumps(json.loads(file.read_text()) | other))
    assert load_mask_proposal(tmp_path / "one").config == load_mask_proposal(tmp_path / "two").config


@pytest.mark.parametrize("name", NETWORKS)
def test_fields_of_earlier_versions_are_ignored(name: str, tmp_path: Path) -> None:
    tiny_transformers(name).save_pretrained(tmp_path)
    expected = load_mask_proposal(tmp_path).config
    file, old = tmp_path / "config.json", {"pruned_heads": {}, "tf_legacy_loss": False, "torchscript": False}
    values = json.loads(file.read_text()) | old
    if "backbone_config" in values:
        values["backbone_config"] |= old
    file.write_text(json.dumps(values))
    assert load_mask_proposal(tmp_path).config == expected


def write_processor(folder: Path, **values: Any) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(values))


def test_preprocessing_is_the_folders_own(tmp_path: Path) -> None:
    tiny_transformers("rf_detr").save_pretrained(tmp_path)
    mean, std = [0.48500001430511475, 0.5, 0.25], [0.2290000021457672, 0.2, 0.1]
    write_processor(tmp_path, image_mean=mean, image_std=std, size={"height": 96, "width": 96})
    config = load_mask_proposal(tmp_path).config
    assert config.pixel_mean == (0.485, 0.5, 0.25)
    assert config.pixel_std == (0.229, 0.2, 0.1)
    assert config.image_size == 96


PROCESSORS: dict[str, tuple[type, dict[str, Any]]] = {
    "mask2former": (Mask2FormerImageProcessor, {"size": {"height": 64, "width": 64}}),
    "eomt": (EomtImageProcessor, {"size": {"shortest_edge": 64, "longest_edge": 64}, "do_pad": True}),
    "rf_detr": (RfDetrImageProcessor, {"size": {"height": 64, "width": 64}}),
}


@pytest.mark.parametrize(("name", "height"), [("mask2former", 64), ("eomt", 64), ("eomt", 36), ("rf_detr", 64)])
def test_frames_are_prepared_as_transformers_prepares_them(name: str, height: int, tmp_path: Path) -> None:
    """With unusual pixel statistics, of frames that need no resampling: those of EoMT are padded to a square."""
    theirs, (processor_class, options) = tiny_transformers(name), PROCESSORS[name]
    if name == "eomt":  # as after training; a mask would open where rounding lifts a logit above zero
        theirs.attn_mask_probs.zero_()
    processor = processor_class(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25], **options)
    theirs.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = load_mask_proposal(tmp_path)
    network = build_mask_proposal(loaded.config, short_side=64, network=loaded.network).eval()
    frames = torch.randint(0, 256, (1, height, 64, 3), dtype=torch.uint8)
    inputs = processor(images=[frame.permute(2, 0, 1) for frame in frames], return_tensors="pt")
    with torch.inference_mode():
        output = theirs(inputs["pixel_values"])
        found = network(frames)
    expected = output.pred_masks if name == "rf_detr" else output.masks_queries_logits
    assert inputs["pixel_values"].shape[-2:] == (64, 64)
    assert (found.mask_logits - expected[..., : height // 4, :]).abs().max() < 1e-5


def test_the_input_of_other_networks_does_not_depend_on_preprocessing(tmp_path: Path) -> None:
    tiny_transformers("mask2former").save_pretrained(tmp_path)
    write_processor(tmp_path, size={"height": 384, "width": 384})
    assert load_mask_proposal(tmp_path).config.image_size == 0


def test_what_transformers_writes_of_preprocessing_is_read(tmp_path: Path) -> None:
    tiny_transformers("eomt").save_pretrained(tmp_path)
    EomtImageProcessor(image_mean=[0.5, 0.4, 0.3], size={"shortest_edge": 64, "longest_edge": 64}).save_pretrained(
        tmp_path
    )
    assert load_mask_proposal(tmp_path).config.pixel_mean == (0.5, 0.4, 0.3)


@pytest.mark.parametrize("values", [{"image_mean": [0.5]}, {"image_std": "half"}, {"image_std": [0.1, 0.1, 0.0]}])
def test_preprocessing_that_cannot_be_read_is_named(values: dict[str, Any], tmp_path: Path) -> None:
    tiny_transformers("eomt").save_pretrained(tmp_path)
    write_processor(tmp_path, **values)
    with pytest.raises(ValueError, match=r"preprocessor_config\.json: cannot be read|pixel_std: expected more than 0"):
        load_mask_proposal(tmp_path)


def test_a_detector_without_masks_is_named(tmp_path: Path) -> None:
    RfDetrForObjectDetection(TINY_PROPOSALS["rf_detr"].build()).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"architectures: expected RfDetrForInstanceSegmentation, which makes masks"):
        load_mask_proposal(tmp_path)


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    tiny_transformers("eomt").save_pretrained(tmp_path)
    tiny_transformers("rf_detr").config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"missing_keys: .*blocks\.0"):
        load_mask_proposal(tmp_path)
    assert "group_detr" in TINY_RF_DETR


def test_mask2former_folders_that_do_not_fit_are_named(mini_config: InstFormerConfig, tmp_path: Path) -> None:
    network = Mask2FormerForUniversalSegmentation(mini_config.mask_proposal.build())
    network.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["class_predictor.bias"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing_keys: class_predictor\.bias"):
        load_mask_proposal(tmp_path)
    state["class_predictor.bias"] = torch.full((2,), float("inf"))
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"NaN or infinite.*class_predictor\.bias"):
        load_mask_proposal(tmp_path)
    with pytest.raises(ValueError, match="expected a transformers folder"):
        load_mask_proposal(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"model\.safetensors: not a Mask2Former of detectron2 .* give the folder"):
        load_mask_proposal(tmp_path / "model.safetensors")


def test_mask2former_files_that_cannot_be_read_are_named(mini_config: InstFormerConfig, tmp_path: Path) -> None:
    Mask2FormerForUniversalSegmentation(mini_config.mask_proposal.build()).save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read"):
        load_mask_proposal(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_mask_proposal(str(tmp_path))
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "maskformer"}))
    with pytest.raises(
        ValueError,
        match=r"config\.json: model_type: unknown value 'maskformer'; use one of \('mask2former', 'eomt', 'rf_detr'\)",
    ):
        load_mask_proposal(tmp_path)
    config.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: cannot be read"):
        load_mask_proposal(tmp_path)
    with pytest.raises(ValueError, match=r"absent\.pkl: expected .* detectron2's \.pkl or \.pth file"):
        load_mask_proposal(tmp_path / "absent.pkl")
    (tmp_path / "other.pkl").write_bytes(pickle.dumps({"model": {"a": np.zeros(1)}}))
    with pytest.raises(ValueError, match=r"other\.pkl: not a Mask2Former"):
        load_mask_proposal(tmp_path / "other.pkl")


def test_swins_load_as_they_were_published(repositories: dict[str, Files], tmp_path: Path) -> None:
    """Files of 2023 have a table and lack a norm, by which transformers does not tell them from others."""
    for name, content in repositories[PROPOSALS].items():
        (tmp_path / name).write_bytes(content)
    published = load_file(tmp_path / PROPOSAL_WEIGHTS)
    assert any(name.endswith("relative_position_index") for name in published)
    state = load_mask_proposal(tmp_path).network.state_dict()
    table = "attention.relative_position_bias.relative_position_bias_table"
    older = "model.pixel_level_module.encoder.encoder.layers.0.blocks.0.attention.self.relative_position_bias_table"
    ours = f"model.pixel_level_module.encoder.swin.encoder.layers.0.blocks.0.{table}"
    assert torch.equal(state[ours], published[older])
    del published[older]
    save_file(published, tmp_path / PROPOSAL_WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=rf"missing_keys: {ours}$"):
        load_mask_proposal(tmp_path)
