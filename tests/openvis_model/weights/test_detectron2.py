import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from numpy.lib.stride_tricks import as_strided
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.weights.detectron2 import config_from_weights, read_pickle, to_transformers
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


def arrays(model):
    return {name: tensor.numpy().copy() for name, tensor in model.named_weights()}


# ----- Names and numbers -----


@pytest.mark.parametrize("build", [small_swin, small_resnet])
def test_converted_model_computes_what_the_original_does(build, tmp_path):
    original = build()
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"model": arrays(original), "__author__": "me"}))
    weights = read_pickle(tmp_path / "model.pkl")
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
    weights = arrays(small_swin())
    older = {old_name(name): array for name, array in weights.items()}
    assert older.keys() != weights.keys()
    config = config_from_weights(older)
    assert config.to_dict() == config_from_weights(weights).to_dict()
    expected = to_transformers(weights, config)
    found = to_transformers(older, config)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_all_that_does_not_fit_is_listed():
    weights = arrays(small_resnet())
    config = config_from_weights(weights)
    del weights["backbone.res4.1.conv2.norm.running_var"]
    decoder = "sem_seg_head.pixel_decoder"
    weights[f"{decoder}.mask_features.weight"] = weights[f"{decoder}.mask_features.weight"].swapaxes(0, 1)
    fused = "sem_seg_head.predictor.transformer_self_attention_layers.0.self_attn.in_proj_bias"
    weights[fused] = weights[fused][:-1]
    strays = ["backbone.res2.1.shortcut.weight", "pixel_mean", "sem_seg_head.predictor.static_query.weight"]
    weights |= {name: np.zeros((7, 32), np.float32) for name in strays}
    with pytest.raises(ValueError, match="do not fit the model") as error:
        to_transformers(weights, config)
    assert str(error.value).partition("? ")[2].split("; ") == [
        "missing: model.pixel_level_module.encoder.encoder.stages.2.layers.1.layer.1.normalization.running_var",
        f"unexpected: {', '.join(strays)}",
        f"of another shape: {decoder}.mask_features.weight (32, 24, 1, 1) for 1 x (24, 32, 1, 1), "
        f"{fused} (95,) for 3 x (32,)",
    ]


def test_other_architectures_are_refused():
    weights = arrays(small_swin())
    del weights["backbone.patch_embed.proj.weight"]
    with pytest.raises(ValueError, match=r"no weight becomes .*patch_embeddings"):
        config_from_weights(weights)


def test_only_what_no_prediction_needs_is_made_up():
    weights = arrays(small_swin())
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
    one = np.zeros(1, np.float32)  # seen as every weight: nothing is allocated
    weights = {name: as_strided(one, w.shape, (0,) * w.ndim) for name, w in original.named_weights()}
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


# ----- Files -----


def written(tmp_path, content):
    path = tmp_path / "model.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return path


@pytest.mark.parametrize("numpy_core", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("protocol", range(6))
def test_arrays_are_read_as_they_were_written(protocol, numpy_core, tmp_path):
    random = np.random.default_rng(0)
    expected = OrderedDict(
        weight=random.normal(size=(2, 3, 5)).astype(np.float32),
        fortran=np.asfortranarray(random.normal(size=(4, 3))),
        strided=random.normal(size=(4, 6)).astype(np.float16)[::2, 1::2],
        index=random.integers(-9, 9, (3, 3)),
        flags=random.random(7) < 0.5,
        counter=np.array(12, np.int64),
    )
    expected._metadata = OrderedDict({"": {"version": 2}})  # as state dicts have it
    content = pickle.dumps({"model": expected, "__author__": "x", "best": np.float64(43.7)}, protocol)
    if protocol < 4:  # module names end with the line, without a length
        content = content.replace(b"numpy._core", numpy_core)
    found = read_pickle(written(tmp_path, content))
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
        assert torch.from_numpy(found[name]).is_contiguous()


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = function, arguments, state

    def __reduce__(self):
        return self.reduced


class Innocent:
    pass


@pytest.mark.parametrize(
    ("function", "named"),
    [(os.system, f"{os.name}.system"), (eval, "builtins.eval"), (getattr, "builtins.getattr"), (np.load, "numpy.load")],
)
@pytest.mark.parametrize("place", [lambda bomb: {"model": {"a": bomb}}, lambda bomb: {"model": {}, "x": [bomb]}])
def test_functions_are_refused_by_name_and_not_called(function, named, place, tmp_path):
    touched = tmp_path / "touched"
    command = f"touch {touched}" if function is os.system else f"open({str(touched)!r}, 'w')"
    path = written(tmp_path, place(Call(function, command)))
    with pytest.raises(ValueError, match="is refused") as error:
        read_pickle(path)
    assert str(path) in str(error.value)
    assert f"`{named}`" in str(error.value)
    assert "save it again" in str(error.value)
    assert not touched.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "`os.system`"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.", "`collections.OrderedDict.fromkeys`"),
        ({"model": {"a": Innocent()}}, f"`{__name__}.Innocent`"),
        ({"model": {"a": torch.zeros(2)}}, "`torch._utils._rebuild_tensor_v2`"),
        ({"model": {"a": np.array([None])}}, "type 'O8'"),
        ({"model": {"a": np.zeros(2)}, "x": np.array([{}])}, "type 'O8'"),
        ({"model": {"a": np.zeros(2, "f4,f4")}}, "type 'V8'"),
        ({"model": {"a": np.array(["name"])}}, "type 'U4'"),
        ({"model": {"a": np.zeros(2, ">f4")}}, "byte order '>'"),
    ],
)
def test_all_but_arrays_of_numbers_is_refused(content, named, tmp_path):
    with pytest.raises(ValueError, match="is refused") as error:
        read_pickle(written(tmp_path, content))
    assert named in str(error.value)


WHOLE = pickle.dumps({"model": {"a": np.zeros(100, np.float32)}})
RECONSTRUCT = np.zeros(1).__reduce__()[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 no pickle",
        WHOLE[:-30],
        WHOLE[:20],
        {"model": {"a": Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (9,), np.dtype("f4"), False, b"short"))}},
        {"model": {"a": Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (9,), "f4", False, b"short"))}},
        b"\x80\x02cnumpy\nndarray\nN}X\x05\x00\x00\x00arrayNs\x86b.",  # sets an attribute of the class
    ],
)
def test_broken_files_are_an_error(content, tmp_path):
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=r"cannot be read|is refused") as error:
        read_pickle(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [[1], {}, {"model": {}}, {"model": None}, {"weights": {"a": np.zeros(2)}}])
def test_file_without_weights_is_an_error(content, tmp_path):
    with pytest.raises(ValueError, match="holds no weights"):
        read_pickle(written(tmp_path, content))


def test_weights_that_are_no_arrays_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"not arrays: b, c\."):
        read_pickle(written(tmp_path, {"model": {"c": 1.0, "a": np.zeros(2), "b": [np.zeros(2)]}}))


def test_missing_file_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_pickle(tmp_path / "model.pkl")


LARGE = b"(" + b"K\x01" * 2 + b"t" + b"2\x86" * 50  # a tuple of two, twice in a tuple, which is twice in a tuple ...
PUNYCODE = "".join(map(chr, range(0x4E00, 0x4E10))).encode()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"}" + LARGE + b"Ns.", "a key that is a tuple"),
        (b"}(" + LARGE + b"Nu.", "a key that is a tuple"),
        (b"(" + LARGE + b"Nd.", "a key that is a tuple"),
        (b"\x80\x04(" + LARGE + b"\x91.", "a key that is a tuple"),
        (b"\x80\x04\x8f(" + LARGE + b"\x90.", "a key that is a tuple"),
        (b"ccollections\nOrderedDict\n(]" + LARGE + b"N\x86atR.", "a key that is a tuple"),
        (b"}X\x05\0\0\0model}" + LARGE + b"Nss.", "a key that is a tuple"),
        (b"cnumpy\ndtype\n" + LARGE + b"\x85R.", "an array of type tuple"),
        (b"c_codecs\nencode\n(X\0\0\0\0" + LARGE + b"tR.", "the codec tuple"),
        (
            b"c_codecs\nencode\n(X" + len(PUNYCODE).to_bytes(4, "little") + PUNYCODE + b"X\x08\0\0\0punycodetR.",
            "the codec 'punycode'",
        ),
    ],
)
def test_what_takes_years_is_refused(content: bytes, named: str, tmp_path: Path) -> None:
    """The hash of nested tuples that share their parts, their text; punycode takes the square of the text's length."""
    with pytest.raises(ValueError, match=f"is refused, and nothing in it was run: it needs {named}"):
        read_pickle(written(tmp_path, content))


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_that_share_their_content_are_refused(protocol: int, tmp_path: Path) -> None:
    """A thousand of them would take a thousand times the memory of the file."""
    data, number_type = bytes(1000), np.dtype("f4")
    array = Call(RECONSTRUCT, np.ndarray, (0,), b"b", state=(1, (250,), number_type, False, data))
    weights = {str(i): Call(*array.reduced[:1], *array.reduced[1], state=array.reduced[2]) for i in range(50)}
    with pytest.raises(ValueError, match="is refused, .* more memory than the file has bytes"):
        read_pickle(written(tmp_path, pickle.dumps({"model": weights}, protocol)))
