"""Converts original Mask2Former checkpoints (detectron2 `.pkl`, Cheng et al. 2022) for transformers' Mask2Former.

    weights = read_pickle(path)
    model = Mask2FormerForUniversalSegmentation(config := config_from_weights(weights))
    model.load_state_dict(to_transformers(weights, config))

The weights do not contain the following, which the models released for COCO instances have in common. Images are RGB on
the 0-255 scale, minus (123.675, 116.28, 103.53), divided by (58.395, 57.12, 57.375), padded to multiples of 32 pixels.
ResNets stride in their 3x3 convolutions and were trained with frozen batch norm, which transformers does not freeze.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from math import isqrt
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
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


def read_pickle(path: Path) -> dict[str, NDArray[Any]]:
    """Reads the arrays of a detectron2 checkpoint, {"model": {name: array}, ...}, without running any code in it.

    Only arrays of numbers, plain containers and `OrderedDict` are rebuilt; entries beside "model" are dropped. Time and
    memory are bounded by the file's size, whatever is in it.

    Raises:
        ValueError: for a truncated file, one that needs any other class or function, or one without weights.
    """
    with path.open("rb") as file:
        try:
            return _weights(_ArrayUnpickler(file).load(), path.stat().st_size)
        except _NoWeightsError as error:
            raise ValueError(f"{path} holds {error}.") from None
        except _RefusedError as refused:
            raise ValueError(
                f"{path} is refused, and nothing in it was run: it needs {refused}; checkpoints need only "
                'arrays of numbers. If you trust its source, save it again as {"model": {name: numpy array}}.'
            ) from None
        except Exception as error:  # garbage makes an unpickler raise anything
            raise ValueError(f"{path} cannot be read ({error!r}); is its download complete?") from error


def _weights(content: Any, file_size: int) -> dict[str, NDArray[Any]]:
    weights = content["model"] if isinstance(content, dict) and "model" in content else None
    if not isinstance(weights, dict) or not weights:
        raise _NoWeightsError('no weights: expected a checkpoint {"model": {name: array}}')
    if strays := sorted(str(name) for name in weights if not isinstance(weights[name], _Array)):
        raise _NoWeightsError(f"weights that are not arrays: {', '.join(strays)}")
    if sum(array.size for array in weights.values()) > file_size:
        raise _RefusedError("more memory than the file has bytes, for arrays that share their content")
    return {str(name): array.build() for name, array in weights.items()}


def config_from_weights(weights: Mapping[str, NDArray[Any]]) -> Mask2FormerConfig:
    """Infers the architecture from names and shapes: Mask2Former with any bottleneck ResNet or Swin.

    Norms after attention, and a drop path of 0.3 in training Swin, are assumed; all released models have both.

    Raises:
        ValueError: if a weight that determines the architecture is missing.
    """
    shapes = {_translate(name): array.shape for name, array in weights.items()}
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
    except KeyError as missing:
        raise ValueError(f"not a Mask2Former with a bottleneck ResNet or Swin: no weight becomes {missing}.") from None
    return Mask2FormerConfig(**fields)


def to_transformers(weights: Mapping[str, NDArray[Any]], config: Mask2FormerConfig) -> dict[str, Tensor]:
    """Returns the whole state dict of `Mask2FormerForUniversalSegmentation(config)`; it may share the arrays' memory.

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
    for name, array in weights.items():
        if name.endswith(".attn.relative_position_index"):
            continue
        targets = list(dict.fromkeys(_translate(name).replace("*", part) for part in "qkv"))
        if not expected.keys() >= set(targets) or not state.keys().isdisjoint(targets):
            unexpected.append(name)
            continue
        like = expected[targets[0]]
        pieces: Iterable[Tensor] = [like] * len(targets)
        if array.shape[1:] == like.shape[1:] and array.size == len(targets) * like.numel():
            pieces = torch.from_numpy(array).to(like.dtype).reshape(len(targets), *like.shape)
        else:
            misshapen.append(f"{name} {array.shape} for {len(targets)} x {tuple(like.shape)}")
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


class _RefusedError(Exception):
    """Names what a pickle needs beyond arrays of numbers."""


class _NoWeightsError(Exception):
    """Says what a whole file holds instead of weights."""


# A hostile file may pass anything to what follows, so the arguments are typed as Any. Nested tuples that share their
# parts take little of a file, and years to be hashed or printed, so neither is done with anything but plain values.
class _NumberType:
    """Stands in for `numpy.dtype`; accepts numbers only, no objects or records."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"):
            raise _RefusedError(f"an array of type {_shown(code)}")
        self.type = np.dtype(f"<{code}")

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|"):
            raise _RefusedError(f"an array of byte order {_shown(state[1])}")


class _Array:
    """Stands in for `numpy.ndarray` and the functions that rebuild one.

    NumPy trusts the pickle: wrong sizes in a type's state make it read out of bounds. Several arrays may share their
    content, so each is built when all are known.
    """

    def __init__(self, *_: Any) -> None:
        self._parts: tuple[Any, ...] = (b"", np.dtype("f4"), (0,), "C")

    def __setstate__(self, state: Any) -> None:
        _, shape, number_type, is_fortran, data = state
        self._parts = self.from_buffer(data, number_type, shape, "F" if is_fortran else "C")._parts

    @classmethod
    def from_buffer(cls, data: Any, number_type: Any, shape: Any, order: Any, *_: Any) -> "_Array":
        if not isinstance(number_type, _NumberType):
            raise _RefusedError(f"an array of type {_shown(number_type)}")
        self = cls()
        self._parts = data, number_type.type, shape, order
        return self

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return len(self._parts[0])

    def build(self) -> NDArray[Any]:
        """Returns the array."""
        data, number_type, shape, order = self._parts
        content = data.encode() if isinstance(data, _Latin1) else data
        return np.frombuffer(content, number_type).reshape(shape, order=order).copy()

    @classmethod
    def scalar(cls, number_type: Any, data: Any) -> "_Array":
        return cls.from_buffer(data, number_type, (), "C")


class _Latin1:
    """Stands in for `_codecs.encode`; other codecs take minutes for little text, as punycode does."""

    def __init__(self, text: Any, encoding: Any) -> None:
        if encoding != "latin1":
            raise _RefusedError(f"the codec {_shown(encoding)}")
        self._text = text

    def __len__(self) -> int:
        return len(self._text)

    def encode(self) -> bytes:
        """Returns the bytes."""
        return str.encode(self._text, "latin1")


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else type(value).__name__


def _check_keys(keys: Iterable[Any]) -> None:
    for key in keys:
        if not isinstance(key, str | bytes | int | float | None):
            raise _RefusedError(f"a key that is a {type(key).__name__}")


def _ordered_dict(pairs: Any = ()) -> OrderedDict[Any, Any]:
    """Stands in for `OrderedDict`."""
    items = [(key, value) for key, value in pairs]
    _check_keys(key for key, _ in items)
    return OrderedDict(items)


def _checking(opcode: bytes, keys: slice) -> dict[int, Callable[[Any], None]]:
    """Returns an opcode's function, after a check of the keys that it takes from the stack."""
    load = pickle._Unpickler.dispatch[opcode[0]]

    def checked(unpickler: Any) -> None:
        _check_keys(unpickler.stack[keys])
        load(unpickler)

    return {opcode[0]: checked}


class _ArrayUnpickler(pickle._Unpickler):
    """Resolves only the globals that checkpoints need; since NumPy 2, files say `numpy._core` for `numpy.core`.

    Written in Python, unlike the usual one, which hashes keys before anybody sees them. Checkpoints have few items.
    """

    dispatch: ClassVar = {
        **pickle._Unpickler.dispatch,
        **_checking(pickle.SETITEM, slice(-2, -1)),
        **_checking(pickle.SETITEMS, slice(0, None, 2)),
        **_checking(pickle.DICT, slice(0, None, 2)),
        **_checking(pickle.ADDITEMS, slice(None)),
        **_checking(pickle.FROZENSET, slice(None)),
    }

    STAND_INS: ClassVar = {
        ("collections", "OrderedDict"): _ordered_dict,
        ("_codecs", "encode"): _Latin1,  # makes the bytes of an array, in protocols 0 to 2
        ("numpy", "dtype"): _NumberType,
        ("numpy", "ndarray"): _Array,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy.core.multiarray", "scalar"): _Array.scalar,
        ("numpy.core.numeric", "_frombuffer"): _Array.from_buffer,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Returns the harmless stand-in for a global, or raises."""
        stand_in = self.STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if stand_in is None:
            raise _RefusedError(f"`{module}.{name}`")
        return stand_in
