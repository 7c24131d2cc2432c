"""Mask2Former's transformer decoder with masked attention (Cheng et al. 2022)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openvis_model.by_size import BySize
from openvis_model.folded.layers import FeedForward, LayerNorm, Linear, Weights
from openvis_model.folded.positions import sine_positions


class MaskDecoder(nn.Module):
    """Instance queries look at the feature maps, each only where its mask of the layer before is.

    Masks between layers are needed at the size of a feature map only. Interpolation is linear, so it is applied to the
    features once for each map, instead of to the masks of every query after each layer.

    Args:
        weights: those of Mask2Former's transformer module.
        mask_projection: the last convolution of the pixel decoder, 1 × 1, which becomes part of the mask embedding.
        heads: number of attention heads.
    """

    def __init__(self, weights: Weights, mask_projection: Weights, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        decoder = weights.under("decoder")
        layers = decoder.items("layers")
        level_embed = weights["level_embed.weight"]
        self.levels = nn.ModuleList(Level(layers[level :: len(level_embed)]) for level in range(len(level_embed)))
        self.layers = nn.ModuleList(DecoderLayer(each, heads=heads) for each in layers)
        self.norm = LayerNorm(decoder.under("layernorm"))
        embedder = decoder.under("mask_predictor").items("mask_embedder")
        self.embed_mask = nn.ModuleList(Linear.of(each.under("0")) for each in embedder)
        for name, tensor in {
            "level_embed": level_embed,
            "queries": weights["queries_features.weight"],
            "positions": weights["queries_embedder.weight"],
            "projection": mask_projection["weight"].flatten(1),
            "projection_bias": mask_projection["bias"],
        }.items():
            self.register_buffer(name, tensor)
        self.level_embed: Tensor
        self.queries: Tensor
        self.positions: Tensor
        self.projection: Tensor
        self.projection_bias: Tensor
        self.by_size = BySize()

    def forward(
        self, levels: Sequence[Tensor], pixels: Float[Tensor, "B C h w"]
    ) -> tuple[Float[Tensor, "B N h w"], Float[Tensor, "B N C"]]:
        """Returns the mask logits and the instance queries of the last layer.

        Args:
            levels: the smaller feature maps [B, C, h, w], the smallest first.
            pixels: the largest feature map, before the mask projection.
        """
        sizes = tuple((each.shape[2], each.shape[3]) for each in levels)
        places = self.by_size(
            sizes, self.queries, lambda: [sine_positions(size, self.queries.shape[1], self.queries) for size in sizes]
        )
        memory = []
        for level, features, embed, position in zip(self.levels, levels, self.level_embed, places, strict=True):
            keys, values = level(features.flatten(2).mT + embed, position, heads=self.heads)
            small = F.interpolate(pixels, size=features.shape[-2:], mode="bilinear").flatten(2)
            memory.append((keys, values, small))
        x = self.queries.expand(len(pixels), -1, -1)
        for number, layer in enumerate(self.layers):
            turn, which = divmod(number, len(memory))
            keys, values, small = memory[which]
            x = layer(x, self.positions, keys[turn], values[turn], open_places(self._masks(x, small)))
        return self._masks(x, pixels.flatten(2)).unflatten(2, pixels.shape[-2:]), self.norm(x)

    def _masks(self, x: Float[Tensor, "B N C"], features: Float[Tensor, "B C P"]) -> Float[Tensor, "B N P"]:
        x = self.norm(x)
        *first, last = self.embed_mask
        for layer in first:
            x = layer(x).relu_()
        embedding = last(x)
        masks: Tensor = (embedding @ self.projection) @ features
        return masks.add_((embedding @ self.projection_bias)[..., None])


class Level(nn.Module):
    """Keys and values of one feature map for all layers that look at it, each in one product."""

    def __init__(self, layers: Sequence[Weights]) -> None:
        super().__init__()
        self.count = len(layers)
        weights = [each["cross_attn.in_proj_weight"].chunk(3) for each in layers]
        biases = [each["cross_attn.in_proj_bias"].chunk(3) for each in layers]
        self.keys, self.values = (
            Linear(torch.cat([each[part] for each in weights]), torch.cat([each[part] for each in biases]))
            for part in (1, 2)
        )

    def forward(
        self, features: Float[Tensor, "B P C"], positions: Float[Tensor, "P C"], *, heads: int
    ) -> tuple[Float[Tensor, "n B heads P d"], Float[Tensor, "n B heads P d"]]:
        """Returns the keys and values of the n layers."""
        keys, values = self.keys(features + positions), self.values(features)
        shape = (self.count, heads, -1)
        keys, values = (each.unflatten(2, shape).permute(2, 0, 3, 1, 4) for each in (keys, values))
        return keys, values


class DecoderLayer(nn.Module):
    """Masked attention to a feature map, attention among the queries, two linear layers."""

    def __init__(self, weights: Weights, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        cross, own = weights.under("cross_attn"), weights.under("self_attn")
        self.cross_query = Linear(cross["in_proj_weight"].chunk(3)[0], cross["in_proj_bias"].chunk(3)[0])
        self.cross_output = Linear.of(cross.under("out_proj"))
        self.cross_norm = LayerNorm(weights.under("cross_attn_layer_norm"))
        self.query_key = Linear.of(own.under("q_proj"), own.under("k_proj"))
        self.value = Linear.of(own.under("v_proj"))
        self.output = Linear.of(own.under("out_proj"))
        self.norm = LayerNorm(weights.under("self_attn_layer_norm"))
        self.feed_forward = FeedForward(weights)

    def forward(
        self,
        x: Float[Tensor, "B N C"],
        positions: Float[Tensor, "N C"],
        keys: Float[Tensor, "B heads P d"],
        values: Float[Tensor, "B heads P d"],
        places: Bool[Tensor, "B N P"],
    ) -> Float[Tensor, "B N C"]:
        """Returns the queries after the layer; `places` is where each may look."""
        query = self._heads(self.cross_query(x + positions))
        seen = F.scaled_dot_product_attention(query, keys, values, attn_mask=places[:, None])
        x = self.cross_norm(x + self.cross_output(seen.transpose(1, 2).flatten(2)))
        query, key = (self._heads(each) for each in self.query_key(x + positions).chunk(2, -1))
        among = F.scaled_dot_product_attention(query, key, self._heads(self.value(x)))
        x = self.norm(x + self.output(among.transpose(1, 2).flatten(2)))
        out: Tensor = self.feed_forward(x)
        return out

    def _heads(self, x: Float[Tensor, "B S C"]) -> Float[Tensor, "B heads S d"]:
        heads: Tensor = x.unflatten(2, (self.heads, -1))
        return heads.transpose(1, 2)


def open_places(masks: Float[Tensor, "B N P"]) -> Bool[Tensor, "B N P"]:
    """Returns where each query may look: inside its mask, or everywhere if the mask is empty."""
    inside = masks >= 0
    return inside | ~inside.any(-1, keepdim=True)
