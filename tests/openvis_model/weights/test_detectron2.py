import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torchvision
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.weights.detectron2 import config_from_weights, to_transformers
from openvis_model.weights.pretrained_proposals import load_mask_proposal
from openvis_model.weights.tensor_file import read_state
from tests.openvis_model.weights.original_mask2former import (
    RESNET_CHANNELS,
    Original,
    Sizes,
    Swin,
    resnet_features,
    swin_b,
    swin_l,
    swin_s,
    swin_t,
)

SMALL = {"mask_dim": 24, "heads": 4, "encoder_ffn": 40, "decoder_ffn": 48, "queries": 7, "classes": 5}


def randomised(model):
    """No two weights alike, all of a size that keeps signals near 1: none can take another's place unseen."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and name != "criterion.empty_weight":
                if tensor.ndim > 1:
                    tensor.normal_(std=tensor[0].numel() ** -0.5 if "embed." not in name else 1)
                elif name.endswith(("weight", "running_var")):  # of a norm
                    tensor.uniform_(0.5, 1.5)
                else:
                    tensor.uniform_(-1, 1)
    return model.eval()


def small_swin():
    """Also with different widths of pixel decoder and predictor, which brings in the latter's input projections."""
    backbone = Swin(16, (2, 1, 2, 2), (1, 2, 4, 2), window=4)
    sizes = Sizes(dim=64, hidden=32, encoder_layers=2, decoder_layers=4, **SMALL)
    return randomised(Original(backbone, [16, 32, 64, 128], sizes))


def small_resnet():
    backbone = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [2, 1, 2, 1])
    backbone.forward = lambda images: resnet_features(backbone, images)
    sizes = Sizes(dim=32, hidden=32, encoder_layers=1, decoder_layers=3, **SMALL)
    return randomised(Original(backbone, RESNET_CHANNELS, sizes))


def weights_of(model):
    return {name: tensor.clone() for name, tensor in model.named_weights()}


def write_released(model, path):
    arrays = {name: tensor.numpy() for name, tensor in model.named_weights()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "me"}))


def write_trained(model, path):
    """What detectron2's trainer saves, which is also what MinVIS publishes."""
    state = OrderedDict(model.named_weights())
    state._metadata = OrderedDict({"": {"version": 1}, "sem_seg_head": {"version": 2}})
    moments = {i: {"step": 6000, "exp_avg": tensor.float()} for i, tensor in enumerate(state.values())}
    groups = [{"lr": 1e-05, "betas": (0.9, 0.999), "foreach": None, "params": list(moments)}]
    trainer = {
        "iteration": 5999,
        "hooks": {"LRScheduler": {"base_lrs": [1e-05], "last_epoch": 6000}},
        "_trainer": {"iteration": 5999, "optimizer": {"state": moments, "param_groups": groups}},
    }
    torch.save({"model": state, "trainer": trainer, "iteration": 5999}, path)


@pytest.mark.parametrize("build", [small_swin, small_resnet])
def test_converted_model_computes_what_the_original_does(build, tmp_path):
    original = build()
    write_released(original, tmp_path / "model.pkl")
    weights = read_state(tmp_path / "model.pkl", "model")
    config = config_from_weights(weights)
    model = Mask2FormerForUniversalSegmentation(config).eval()
    model.load_state_dict(to_transformers(weights, config), strict=True)
    images = torch.randn(2, 3, 64, 96).double()
    features, maps, mask_features, predictions = original.double()(images)
    outputs = model.double()(images, output_hidden_states=True, output_auxiliary_logits=True)
    ours = [
        *outputs.encoder_hidden_states,
        *outputs.pixel_decoder_hidden_states,
        outputs.pixel_decoder_last_hidden_state,
        *(
            layer[kind]
            for layer in outputs.auxiliary_logits
            for kind in ("class_queries_logits", "masks_queries_logits")
        ),
        outputs.class_queries_logits,
        outputs.masks_queries_logits,
    ]
    theirs = [*features, *maps, mask_features, *(logits for prediction in predictions for logits in prediction)]
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        assert expected.std() > 0.1


@pytest.mark.parametrize("build", [small_swin, small_resnet])
def test_checkpoints_of_the_trainer_load_as_released_files_do(build, tmp_path: Path):
    original = build()
    write_released(original, tmp_path / "model_final_3c8ec9.pkl")
    write_trained(original, tmp_path / "model_final.pth")
    expected = load_mask_proposal(tmp_path / "model_final_3c8ec9.pkl").network.state_dict()
    found = load_mask_proposal(tmp_path / "model_final.pth").network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("build", [small_swin, small_resnet])
def test_every_weight_changes_the_predictions(build):
    """Else the comparison above would prove nothing about it."""
    original = build().double()
    *_, predictions = original(torch.randn(1, 3, 64, 96).double())
    sum((x * torch.randn_like(x)).sum() for prediction in predictions for x in prediction).backward()
    idle = [name for name, weight in original.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert [name for name in idle if not name.startswith("backbone.fc.")] == []


def old_name(name):
    return name.replace("query_feat", "static_query").replace("pixel_decoder.", "")


def test_names_of_older_versions_lead_to_the_same():
    weights = weights_of(small_swin())
    older = {old_name(name): array for name, array in weights.items()}
    assert older.keys() != weights.keys()
    config = config_from_weights(older)
    assert config.to_dict() == config_from_weights(weights).to_dict()
    expected = to_transformers(weights, config)
    found = to_transformers(older, config)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_all_that_does_not_fit_is_listed():
    weights = weights_of(small_resnet())
    config = config_from_weights(weights)
    del weights["backbone.res4.1.conv2.norm.running_var"]
    decoder = "sem_seg_head.pixel_decoder"
    weights[f"{decoder}.mask_features.weight"] = weights[f"{decoder}.mask_features.weight"].swapaxes(0, 1)
    fused = "sem_seg_head.predictor.transformer_self_attention_layers.0.self_attn.in_proj_bias"
    weights[fused] = weights[fused][:-1]
    strays = ["backbone.res2.1.shortcut.weight", "pixel_mean", "sem_seg_head.predictor.static_query.weight"]
    weights |= {name: torch.zeros(7, 32) for name in strays}
    with pytest.raises(ValueError, match="do not fit the model") as error:
        to_transformers(weights, config)
    assert str(error.value).partition("? ")[2].split("; ") == [
        "missing: model.pixel_level_module.encoder.encoder.stages.2.layers.1.layer.1.normalization.running_var",
        f"unexpected: {', '.join(strays)}",
        f"of another shape: {decoder}.mask_features.weight (32, 24, 1, 1) for 1 x (24, 32, 1, 1), "
        f"{fused} (95,) for 3 x (32,)",
    ]


def test_other_architectures_are_refused():
    weights = weights_of(small_swin())
    del weights["backbone.patch_embed.proj.weight"]
    with pytest.raises(ValueError, match=r"no weight becomes .*patch_embeddings"):
        config_from_weights(weights)


def test_only_what_no_prediction_needs_is_made_up():
    weights = weights_of(small_swin())
    config = config_from_weights(weights)
    expected = to_transformers(weights, config)
    del weights["criterion.empty_weight"]
    state = to_transformers(weights, config)
    torch.testing.assert_close(state["criterion.empty_weight"], expected["criterion.empty_weight"])
    indices = sum(name.endswith("relative_position_index") for name in weights)
    fused = sum(".qkv." in name or ".self_attn.in_proj_" in name for name in weights)
    assert len(state) == len(weights) - indices + 2 * fused + len(["empty_weight", "norm.weight", "norm.bias"])


@pytest.mark.parametrize(
    ("backbone", "channels", "queries", "millions"),
    [
        (torchvision.models.resnet50, RESNET_CHANNELS, 100, 44),
        (swin_t, [96, 192, 384, 768], 100, 47),
        (swin_s, [96, 192, 384, 768], 100, 69),
        (swin_b, [128, 256, 512, 1024], 100, 107),
        (swin_l, [192, 384, 768, 1536], 200, 216),
    ],
)
def test_released_sizes_are_inferred_and_filled(backbone, channels, queries, millions):
    with torch.device("meta"):
        original = Original(backbone(), channels, Sizes(queries=queries))
    parameters = sum(p.numel() for name, p in original.named_parameters() if not name.startswith("backbone.fc."))
    assert parameters / 1e6 == pytest.approx(millions, abs=0.7)  # as Cheng et al. 2022 count them
    one = torch.zeros(1)  # seen as every weight: nothing is allocated
    weights = {name: one.as_strided(w.shape, (0,) * w.ndim) for name, w in original.named_weights()}
    config = config_from_weights(weights)
    state = to_transformers(weights, config)
    with torch.device("meta"):
        Mask2FormerForUniversalSegmentation(config).load_state_dict(state, strict=True, assign=True)
    assert (config.num_labels, config.num_queries, config.decoder_layers, config.encoder_layers) == (80, queries, 10, 6)
    assert (config.num_attention_heads, config.hidden_dim, config.dim_feedforward) == (8, 256, 2048)
    if isinstance(original.backbone, Swin):
        found = config.backbone_config
        assert (found.embed_dim, found.window_size) == (channels[0], original.backbone.window)
        assert found.depths == [len(layer.blocks) for layer in original.backbone.layers]
        assert found.num_heads == [layer.blocks[0].attn.heads for layer in original.backbone.layers]
    else:
        assert (config.backbone_config.depths, config.backbone_config.hidden_sizes) == ([3, 4, 6, 3], channels)
