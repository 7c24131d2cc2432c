import os
import pickle
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from numpy.lib.stride_tricks import as_strided
from torch import nn
from transformers import Mask2FormerForUniversalSegmentation

from openvis_model.weights.detectron2 import config_from_weights, read_pickle, to_transformers

# ----- The original in its own names, rewritten small and plain from the paper and its code (Cheng et al. 2022) -----


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of pixel decoder and predictor; the defaults are those of the released models."""

    dim: int = 256
    hidden: int = 256
    mask_dim: int = 256
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 9
    encoder_ffn: int = 1024
    decoder_ffn: int = 2048
    queries: int = 100
    classes: int = 80


class Holder(nn.Module):
    """A module that only gives names to its parts."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class NormedConv(nn.Conv2d):
    """Detectron2's convolution: its norm is a part of it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs, bias=False)
        self.norm = nn.GroupNorm(32, self.out_channels)

    def forward(self, x):
        return self.norm(super().forward(x))


class WindowAttention(nn.Module):
    def __init__(self, dim, heads, window):
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        dy, dx = (v.flatten()[:, None] - v.flatten()[None] + window - 1 for v in (y, x))
        self.register_buffer("relative_position_index", dy * (2 * window - 1) + dx)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x, shift):
        (B, H, W, C), w = x.shape, self.window
        x = F.pad(x, (0, 0, 0, -W % w, 0, -H % w)).roll((-shift, -shift), (1, 2))
        _, Hp, Wp, _ = x.shape

        def windows(v):
            v = v.reshape(-1, Hp // w, w, Wp // w, w, v.shape[-1]).transpose(2, 3)
            return v.reshape(-1, Hp // w * (Wp // w), w * w, v.shape[-1])

        # After the roll, rows (and columns) of three kinds meet in the last windows; only one's own kind is seen.
        rows, columns = ((torch.arange(n) >= n - w).int() + (torch.arange(n) >= n - shift) for n in (Hp, Wp))
        kind = windows((3 * rows[:, None] + columns)[None, :, :, None]) if shift else windows(torch.zeros(1, Hp, Wp, 1))
        hidden = -100.0 * (kind != kind.transpose(2, 3))
        q, k, v = self.qkv(windows(x)).reshape(B, -1, w * w, 3, self.heads, C // self.heads).unbind(3)
        scores = torch.einsum("bnqhc,bnkhc->bnhqk", q, k) / (C // self.heads) ** 0.5
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        weights = (scores + bias + hidden[:, :, None]).softmax(-1)
        x = self.proj(torch.einsum("bnhqk,bnkhc->bnqhc", weights, v).flatten(3))
        x = x.reshape(B, Hp // w, Wp // w, w, w, C).transpose(2, 3).reshape(B, Hp, Wp, C)
        return x.roll((shift, shift), (1, 2))[:, :H, :W]


class Swin(nn.Module):
    def __init__(self, dim, depths, heads, window):
        super().__init__()
        self.window = window
        self.patch_embed = Holder(proj=nn.Conv2d(3, dim, 4, 4), norm=nn.LayerNorm(dim))
        self.layers = nn.ModuleList()
        for stage, (depth, n) in enumerate(zip(depths, heads, strict=True)):
            C = dim * 2**stage
            blocks = nn.ModuleList(
                Holder(
                    norm1=nn.LayerNorm(C),
                    attn=WindowAttention(C, n, window),
                    norm2=nn.LayerNorm(C),
                    mlp=Holder(fc1=nn.Linear(C, 4 * C), fc2=nn.Linear(4 * C, C)),
                )
                for _ in range(depth)
            )
            self.layers.append(Holder(blocks=blocks))
            if stage < 3:
                reduction = nn.Linear(4 * C, 2 * C, bias=False)
                self.layers[-1].downsample = Holder(norm=nn.LayerNorm(4 * C), reduction=reduction)
            self.add_module(f"norm{stage}", nn.LayerNorm(C))

    def forward(self, images):
        x = self.patch_embed.norm(self.patch_embed.proj(images).permute(0, 2, 3, 1))
        features = []
        for stage, layer in enumerate(self.layers):
            for i, block in enumerate(layer.blocks):
                x = x + block.attn(block.norm1(x), shift=self.window // 2 if i % 2 else 0)
                x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
            features.append(self.get_submodule(f"norm{stage}")(x).permute(0, 3, 1, 2))
            if stage < 3:
                four = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
                x = layer.downsample.reduction(layer.downsample.norm(torch.cat(four, -1)))
        return features


def sine_positions(size, dim):
    """Sines and cosines of the row in the first half of the channels, of the column in the second, [1, dim, H, W]."""
    frequency = 10000.0 ** (-2 * (torch.arange(dim // 2).double() // 2) / (dim // 2))

    H, W = size

    def encode(n):
        angle = (torch.arange(n) + 1).double()[:, None] / (n + 1e-6) * 2 * torch.pi * frequency
        return torch.where(torch.arange(dim // 2) % 2 == 0, angle.sin(), angle.cos())

    rows, columns = encode(H)[:, None].expand(-1, W, -1), encode(W)[None].expand(H, -1, -1)
    return torch.cat([rows, columns], -1).permute(2, 0, 1)[None]


class DeformableAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.sampling_offsets = nn.Linear(dim, heads * 3 * 4 * 2)
        self.attention_weights = nn.Linear(dim, heads * 3 * 4)
        self.value_proj, self.output_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, query, tokens, sizes, centres):
        B, T, _ = tokens.shape
        offsets = self.sampling_offsets(query).view(B, T, self.heads, 3, 4, 2)
        weights = self.attention_weights(query).view(B, T, self.heads, 12).softmax(-1).view(B, T, self.heads, 3, 4)
        values = self.value_proj(tokens).split([H * W for H, W in sizes], 1)
        mixed = 0
        for level, (H, W) in enumerate(sizes):
            image = values[level].reshape(B, H, W, self.heads, -1).permute(0, 3, 4, 1, 2).flatten(0, 1)
            where = centres[:, None, None] + offsets[:, :, :, level] / torch.tensor([W, H])
            grid = 2 * where.transpose(1, 2).flatten(0, 1) - 1
            sampled = F.grid_sample(image, grid, align_corners=False).view(B, self.heads, -1, T, 4)
            mixed = mixed + torch.einsum("bhctp,bthp->bthc", sampled, weights[:, :, :, level])
        return self.output_proj(mixed.flatten(2))


class PixelDecoder(nn.Module):
    def __init__(self, channels, sizes):
        super().__init__()
        dim, ffn = sizes.dim, sizes.encoder_ffn
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(C, dim, 1), nn.GroupNorm(32, dim)) for C in channels[:0:-1]
        )
        layers = nn.ModuleList(
            Holder(
                self_attn=DeformableAttention(dim, sizes.heads),
                norm1=nn.LayerNorm(dim),
                linear1=nn.Linear(dim, ffn),
                linear2=nn.Linear(ffn, dim),
                norm2=nn.LayerNorm(dim),
            )
            for _ in range(sizes.encoder_layers)
        )
        self.transformer = Holder(encoder=Holder(layers=layers), level_embed=nn.Parameter(torch.empty(3, dim)))
        self.adapter_1 = NormedConv(channels[0], dim, 1)
        self.layer_1 = NormedConv(dim, dim, 3, padding=1)
        self.mask_features = nn.Conv2d(dim, sizes.mask_dim, 1)

    def forward(self, features):
        maps = [project(x) for project, x in zip(self.input_proj, features[:0:-1], strict=True)]
        sizes = [tuple(x.shape[-2:]) for x in maps]
        x = torch.cat([x.flatten(2).mT for x in maps], 1)
        positions = torch.cat(
            [
                sine_positions(size, x.shape[-1]).flatten(2).mT + level
                for size, level in zip(sizes, self.transformer.level_embed, strict=True)
            ],
            1,
        )
        rows_columns = [[(torch.arange(n).to(x) + 0.5) / n for n in size] for size in sizes]
        centres = torch.cat([torch.cartesian_prod(*middle).flip(-1) for middle in rows_columns])  # x, y
        for layer in self.transformer.encoder.layers:
            x = layer.norm1(x + layer.self_attn(x + positions, x, sizes, centres))
            x = layer.norm2(x + layer.linear2(F.relu(layer.linear1(x))))
        maps = [y.mT.unflatten(2, size) for y, size in zip(x.split([H * W for H, W in sizes], 1), sizes, strict=True)]
        lateral = self.adapter_1(features[0])
        finest = F.relu(self.layer_1(lateral + F.interpolate(maps[-1], lateral.shape[-2:], mode="bilinear")))
        return maps, self.mask_features(finest)


class Predictor(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        dim, ffn = sizes.hidden, sizes.decoder_ffn

        def norm():
            return nn.LayerNorm(dim)

        def attention():
            return nn.MultiheadAttention(dim, sizes.heads, batch_first=True)

        def project():
            return nn.Identity() if sizes.dim == dim else nn.Conv2d(sizes.dim, dim, 1)

        layers = range(sizes.decoder_layers)
        self.query_feat, self.query_embed = nn.Embedding(sizes.queries, dim), nn.Embedding(sizes.queries, dim)
        self.level_embed = nn.Embedding(3, dim)
        self.input_proj = nn.ModuleList(project() for _ in range(3))
        self.transformer_cross_attention_layers = nn.ModuleList(
            Holder(multihead_attn=attention(), norm=norm()) for _ in layers
        )
        self.transformer_self_attention_layers = nn.ModuleList(
            Holder(self_attn=attention(), norm=norm()) for _ in layers
        )
        self.transformer_ffn_layers = nn.ModuleList(
            Holder(linear1=nn.Linear(dim, ffn), linear2=nn.Linear(ffn, dim), norm=norm()) for _ in layers
        )
        self.decoder_norm = norm()
        self.class_embed = nn.Linear(dim, sizes.classes + 1)
        self.mask_embed = Holder(layers=nn.ModuleList(nn.Linear(dim, n) for n in (dim, dim, sizes.mask_dim)))

    def predict(self, x, mask_features):
        x = self.decoder_norm(x)
        first, second, third = self.mask_embed.layers
        masks = torch.einsum("bnc,bchw->bnhw", third(F.relu(second(F.relu(first(x))))), mask_features)
        return self.class_embed(x), masks

    def forward(self, maps, mask_features):
        B, heads = len(mask_features), self.transformer_self_attention_layers[0].self_attn.num_heads
        x, positions = (e.weight.expand(B, -1, -1) for e in (self.query_feat, self.query_embed))
        predictions = [self.predict(x, mask_features)]
        layers = (self.transformer_cross_attention_layers, self.transformer_self_attention_layers)
        for i, (cross, itself, ffn) in enumerate(zip(*layers, self.transformer_ffn_layers, strict=True)):
            level = i % 3
            size = maps[level].shape[-2:]
            memory = self.input_proj[level](maps[level]).flatten(2).mT + self.level_embed.weight[level]
            keys = memory + sine_positions(size, x.shape[-1]).flatten(2).mT
            background = (F.interpolate(predictions[-1][1], size, mode="bilinear") < 0).flatten(2)
            background &= ~background.all(-1, keepdim=True)  # a query that sees nothing sees all
            background = background.repeat_interleave(heads, 0)
            x = cross.norm(x + cross.multihead_attn(x + positions, keys, memory, attn_mask=background)[0])
            x = itself.norm(x + itself.self_attn(x + positions, x + positions, x)[0])
            x = ffn.norm(x + ffn.linear2(F.relu(ffn.linear1(x))))
            predictions.append(self.predict(x, mask_features))
        return predictions


class Original(nn.Module):
    def __init__(self, backbone, channels, sizes):
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = Holder(
            pixel_decoder=PixelDecoder(channels, sizes),
            predictor=Predictor(sizes),
        )
        self.criterion = Holder()
        self.criterion.register_buffer("empty_weight", torch.tensor([1.0] * sizes.classes + [0.1]))

    def forward(self, images):
        features = self.backbone(images)
        maps, mask_features = self.sem_seg_head.pixel_decoder(features)
        return features, maps, mask_features, self.sem_seg_head.predictor(maps, mask_features)

    def named_weights(self):
        """What a checkpoint holds: the state dict with torchvision's names of a ResNet turned into detectron2's."""
        for name, tensor in self.state_dict().items():
            if isinstance(self.backbone, torchvision.models.ResNet) and name.startswith("backbone."):
                if "num_batches_tracked" in name or ".fc." in name:  # frozen batch norms count nothing
                    continue
                name = name.replace("backbone.conv1.", "backbone.stem.conv1.").replace(".bn1.", ".conv1.norm.")
                name = name.replace("backbone.conv1.norm.", "backbone.stem.conv1.norm.")
                name = name.replace(".bn2.", ".conv2.norm.").replace(".bn3.", ".conv3.norm.")
                name = name.replace(".downsample.0.", ".shortcut.").replace(".downsample.1.", ".shortcut.norm.")
                for stage in (1, 2, 3, 4):
                    name = name.replace(f"backbone.layer{stage}.", f"backbone.res{stage + 1}.")
            yield name, tensor


def resnet_features(resnet, images):
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images))))
    return [x := stage(x) for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)]


RESNET_CHANNELS = [256, 512, 1024, 2048]
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


def swin_t():
    return Swin(96, (2, 2, 6, 2), (3, 6, 12, 24), window=7)


def swin_s():
    return Swin(96, (2, 2, 18, 2), (3, 6, 12, 24), window=7)


def swin_b():
    return Swin(128, (2, 2, 18, 2), (4, 8, 16, 32), window=12)


def swin_l():
    return Swin(192, (2, 2, 18, 2), (6, 12, 24, 48), window=12)


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
