"""Mask2Former with the names that Detectron2 gives, small and plain, from the paper and code (Cheng et al. 2022)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import torchvision
from torch import nn


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


def swin_t():
    return Swin(96, (2, 2, 6, 2), (3, 6, 12, 24), window=7)


def swin_s():
    return Swin(96, (2, 2, 18, 2), (3, 6, 12, 24), window=7)


def swin_b():
    return Swin(128, (2, 2, 18, 2), (4, 8, 16, 32), window=12)


def swin_l():
    return Swin(192, (2, 2, 18, 2), (6, 12, 24, 48), window=12)
