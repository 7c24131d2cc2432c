"""Converts original Mask2Former checkpoints (Cheng et al. 2022) for transformers' Mask2Former.

They are detectron2's `.pkl` files of released models, and the `.pth` files of its trainer. Models trained with MinVIS
(Huang et al. 2022) have the same names.

    weights = read_state(path, "model")
    model = Mask2FormerForUniversalSegmentation(config := config_from_weights(weights))
    model.load_state_dict(to_transformers(weights, config))

The weights do not contain the following, which the models released for COCO instances have in common. Images are RGB on
the 0-255 scale, minus (123.675, 116.28, 103.53), divided by (58.395, 57.12, 57.375), padded to multiples of 32 pixels.
ResNets stride in their 3x3 convolutions and were trained with frozen batch norm, which transformers does not freeze.
"""

import re
from collections.abc import Iterable, Mapping
from math import isqrt

import torch
from torch import Tensor
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig, SwinConfig

# The rules of a prefix rewrite the names below it, one rule after the other; `*` stands for q, k and v, which a fused
# projection holds in this order.
_BACKBONE = (
    # ResNet
    (r"(conv\d|shortcut)\.weight$", r"\1.convolution.weight"),
    (r"(conv\d|shortcut)\.norm\.", r"\1.normalization."),
    (r"^stem\.conv1\.", "embedder.embedder."),
    *((rf"^res{stage + 2}\.(\d+)\.", rf"encoder.stages.{stage}.layers.\1.") for stage in range(4)),
    *((rf"\.conv{i + 1}\.", f".layer.{i}.") for i in range(3)),
    # Swin
    (r"^patch_embed\.proj\.", "swin.embeddings.patch_embeddings.projection."),
    (r"^patch_embed\.norm\.", "swin.embeddings.norm."),
    *((rf"^norm{stage}\.", f"hidden_states_norms.stage{stage + 1}.") for stage in range(4)),
    (r"^layers\.", "swin.encoder.layers."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.qkv\.", ".attention.*_proj."),
    (r"\.attn\.proj\.", ".attention.o_proj."),
    (r"\.attn\.relative_position_bias_table$", ".attention.relative_position_bias.relative_position_bias_table"),
)
_PIXEL_DECODER = (
    (r"^input_proj\.", "input_projections."),
    (r"^transformer\.", ""),
    (r"\.norm1\.", ".self_attn_layer_norm."),
    (r"\.linear(\d)\.", r".fc\1."),
    (r"\.norm2\.", ".final_layer_norm."),
    (r"^(adapter_1|layer_1)\.weight$", r"\1.0.weight"),
    (r"^(adapter_1|layer_1)\.norm\.", r"\1.1."),
    (r"^mask_features\.", "mask_projection."),
)
_PREDICTOR = (
    (r"^(query_feat|static_query)\.", "queries_features."),  # released files have the older name, static_query
    (r"^query_embed\.", "queries_embedder."),
    (r"^input_proj\.", "input_projections."),
    (r"^transformer_cross_attention_layers\.(\d+)\.multihead_attn\.", r"decoder.layers.\1.cross_attn."),
    (r"^transformer_cross_attention_layers\.(\d+)\.norm\.", r"decoder.layers.\1.cross_attn_layer_norm."),
    (r"^transformer_self_attention_layers\.(\d+)\.self_attn\.", r"decoder.layers.\1.self_attn."),
    (r"^transformer_self_attention_layers\.(\d+)\.norm\.", r"decoder.layers.\1.self_attn_layer_norm."),
    (r"\.self_attn\.in_proj_", ".self_attn.*_proj."),
    (r"^transformer_ffn_layers\.(\d+)\.linear(\d)\.", r"decoder.layers.\1.fc\2."),
    (r"^transformer_ffn_layers\.(\d+)\.norm\.", r"decoder.layers.\1.final_layer_norm."),
    (r"^decoder_norm\.", "decoder.layernorm."),
    (r"^mask_embed\.layers\.(\d)\.", r"decoder.mask_predictor.mask_embedder.\1.0."),
)
_PREFIXES = (
    ("backbone.", "model.pixel_level_module.encoder.", _BACKBONE),
    ("sem_seg_head.predictor.class_embed.", "class_predictor.", ()),
    ("sem_seg_head.predictor.", "model.transformer_module.", _PREDICTOR),
    ("sem_seg_head.pixel_decoder.", "model.pixel_level_module.decoder.", _PIXEL_DECODER),
    ("sem_seg_head.", "model.pixel_level_module.decoder.", _PIXEL_DECODER),  # before version 2 of the head
    ("criterion.", "criterion.", ()),
)
_STAGES = ["stage1", "stage2", "stage3", "stage4"]
# transformers fixes 4 sampling points on each of 3 levels for a head of deformable attention.
_SAMPLES = 3 * 4


def config_from_weights(weights: Mapping[str, Tensor]) -> Mask2FormerConfig:
    """Infers the architecture from names and shapes: Mask2Former with any bottleneck ResNet or Swin.

    Norms after attention, and a drop path of 0.3 in training Swin, are assumed; all released models have both.

    Raises:
        ValueError: if a weight that determines the architecture is missing.
    """
    shapes = {_translate(name): tuple(weight.shape) for name, weight in weights.items()}
    pixels, module = "model.pixel_level_module.decoder", "model.transformer_module"
    try:
        num_queries, hidden_dim = shapes[f"{module}.queries_features.weight"]
        mask_feature_size, feature_size, *_ = shapes[f"{pixels}.mask_projection.weight"]
        fields = {
            "backbone_config": _backbone_config(shapes, "model.pixel_level_module.encoder"),
            "num_labels": shapes["class_predictor.weight"][0] - 1,
            "num_queries": num_queries,
            "hidden_dim": hidden_dim,
            "feature_size": feature_size,
            "mask_feature_size": mask_feature_size,
            "num_attention_heads": shapes[f"{pixels}.encoder.layers.0.self_attn.attention_weights.bias"][0] // _SAMPLES,
            "encoder_layers": _count(shapes, f"{pixels}.encoder.layers."),
            "encoder_feedforward_dim": shapes[f"{pixels}.encoder.layers.0.fc1.bias"][0],
            # transformers counts the prediction from the bare queries as a layer.
            "decoder_layers": _count(shapes, f"{module}.decoder.layers.") + 1,
            "dim_feedforward": shapes[f"{module}.decoder.layers.0.fc1.bias"][0],
            "enforce_input_projection": f"{module}.input_projections.0.weight" in shapes,
        }
    except (KeyError, IndexError) as missing:
        raise ValueError(
            f"not a Mask2Former of detectron2 with a bottleneck ResNet or Swin: no weight becomes {missing}; "
            "of a model of transformers, give the folder"
        ) from None
    return Mask2FormerConfig(**fields)


def to_transformers(weights: Mapping[str, Tensor], config: Mask2FormerConfig) -> dict[str, Tensor]:
    """Returns the whole state dict of `Mask2FormerForUniversalSegmentation(config)`; it may share the weights' memory.

    Weights and parameters must correspond one to one. `relative_position_index` is skipped, because transformers
    computes it. Tensors that no prediction depends on are filled in: batch norm's counters, a norm after Swin that
    feature maps bypass, and `criterion.empty_weight` if the file lacks it.

    Raises:
        ValueError: if names are missing, unexpected or of another shape; lists all of them.
    """
    with torch.device("meta"):
        expected: dict[str, Tensor] = Mask2FormerForUniversalSegmentation(config).state_dict()
    state: dict[str, Tensor] = {}
    unexpected, misshapen = [], []
    for name, weight in weights.items():
        if name.endswith(".attn.relative_position_index"):
            continue
        targets = list(dict.fromkeys(_translate(name).replace("*", part) for part in "qkv"))
        if not expected.keys() >= set(targets) or not state.keys().isdisjoint(targets):
            unexpected.append(name)
            continue
        like = expected[targets[0]]
        pieces: Iterable[Tensor] = [like] * len(targets)
        if weight.shape[1:] == like.shape[1:] and weight.numel() == len(targets) * like.numel():
            pieces = weight.to(like.dtype).reshape(len(targets), *like.shape)
        else:
            misshapen.append(f"{name} {tuple(weight.shape)} for {len(targets)} x {tuple(like.shape)}")
        state |= zip(targets, pieces, strict=True)
    state = _defaults(expected, config) | state
    problems = {"missing": expected.keys() - state.keys(), "unexpected": unexpected, "of another shape": misshapen}
    if lists := [f"{problem}: {', '.join(sorted(names))}" for problem, names in problems.items() if names]:
        raise ValueError(f"weights do not fit the model; is its config that of config_from_weights? {'; '.join(lists)}")
    return state


def _translate(name: str) -> str:
    """Returns the name in transformers, with a `*` if it stands for three; empty for an unknown prefix."""
    for original, translated, rules in _PREFIXES:
        if name.startswith(original):
            rest = name.removeprefix(original)
            for pattern, replacement in rules:
                rest = re.sub(pattern, replacement, rest)
            return translated + rest
    return ""


def _defaults(expected: Mapping[str, Tensor], config: Mask2FormerConfig) -> dict[str, Tensor]:
    """Returns tensors that a file may lack, because no prediction depends on them."""
    empty_weight = torch.ones(config.num_labels + 1)
    empty_weight[-1] = config.no_object_weight
    defaults = {"criterion.empty_weight": empty_weight}
    for name, like in expected.items():
        if name.endswith(".num_batches_tracked"):
            defaults[name] = torch.zeros((), dtype=like.dtype)
        elif ".encoder.swin.layernorm." in name:
            defaults[name] = torch.full(like.shape, float(name.endswith(".weight")))
    return defaults


def _backbone_config(shapes: Mapping[str, tuple[int, ...]], encoder: str) -> ResNetConfig | SwinConfig:
    """Infers the backbone from the shapes of translated names; KeyError if it is neither ResNet nor Swin."""
    if stem := shapes.get(f"{encoder}.embedder.embedder.convolution.weight"):
        stages = [f"{encoder}.encoder.stages.{stage}.layers." for stage in range(4)]
        return ResNetConfig(
            embedding_size=stem[0],
            hidden_sizes=[shapes[f"{stage}0.layer.2.convolution.weight"][0] for stage in stages],
            depths=[_count(shapes, stage) for stage in stages],
            out_features=_STAGES,
        )
    stages = [f"{encoder}.swin.encoder.layers.{stage}.blocks." for stage in range(4)]
    embed_dim, _, patch_size, _ = shapes[f"{encoder}.swin.embeddings.patch_embeddings.projection.weight"]
    table = "attention.relative_position_bias.relative_position_bias_table"  # [(2 * window - 1)^2, heads]
    return SwinConfig(
        embed_dim=embed_dim,
        patch_size=patch_size,
        depths=[_count(shapes, stage) for stage in stages],
        num_heads=[shapes[f"{stage}0.{table}"][1] for stage in stages],
        window_size=(isqrt(shapes[f"{stages[0]}0.{table}"][0]) + 1) // 2,
        mlp_ratio=shapes[f"{stages[0]}0.mlp.fc1.weight"][0] / embed_dim,
        qkv_bias=f"{stages[0]}0.attention.*_proj.bias" in shapes,
        drop_path_rate=0.3,
        out_features=_STAGES,
    )


def _count(names: Iterable[str], prefix: str) -> int:
    """Counts the numbered modules directly below `prefix`."""
    return len({name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)})
