"""Small CLIPs with random weights, in the forms that OpenAI, open_clip and TinyCLIP publish theirs in."""

import warnings
from copy import deepcopy
from pathlib import Path

import torch
from open_clip import CLIP
from torch import Tensor

from openvis_model.clip import ClipConfig, build_clip


def small_clip(*, quick_gelu: bool) -> ClipConfig:
    """The config of a CLIP with a text and an image block."""
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 1}
    text = {"context_length": 6, "vocab_size": 20, "width": 16, "heads": 2, "layers": 2}
    return ClipConfig(
        architecture={"embed_dim": 8, "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick_gelu},
    )


def random_clip(config: ClipConfig) -> CLIP:
    """A CLIP no two of whose weights are alike, and which half precision holds."""
    clip = build_clip(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.copy_((0.1 * torch.randn(parameter.shape, generator=generator)).half())
    return clip


def state_of(clip: CLIP) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in clip.state_dict().items()}


def openai_state(clip: CLIP) -> dict[str, Tensor]:
    """The state dict of OpenAI's archive: half precision, and three numbers beside the weights."""
    numbers = {"input_resolution": 32, "context_length": 6, "vocab_size": 20}
    weights = {name: tensor.half() for name, tensor in state_of(clip).items()}
    return weights | {name: torch.tensor(number) for name, number in numbers.items()}


def write_openai_archive(clip: CLIP, file: Path) -> None:
    """The archive itself: a traced program whose blocks of text hold the causal mask."""
    clip, state = deepcopy(clip), openai_state(clip)
    for block in clip.transformer.resblocks:
        block.attn_mask = clip.attn_mask
    for name in state.keys() - clip.state_dict().keys():
        vars(clip).pop(name, None)
        clip.register_buffer(name, state[name])
    inputs = {"encode_image": torch.zeros(1, 3, 32, 32), "encode_text": torch.zeros(1, 6, dtype=torch.int)}
    with warnings.catch_warnings(action="ignore"):  # torch advises other formats for new programs
        program = torch.jit.trace_module(clip, inputs, check_trace=False).half()
        torch.jit.save(program, file)
    assert program.state_dict().keys() >= state.keys()


def tinyclip_state(clip: CLIP) -> dict[str, Tensor]:
    """TinyCLIP's names after distributed training: each tower, and the scale, in a wrapper of its own."""

    def name(name: str) -> str:
        tower = {"visual": "image_encoder", "logit_scale": "logit_scale"}.get(name.split(".")[0], "text_encoder")
        return f"_{tower}.module.{name}"

    return {name(ours): tensor for ours, tensor in state_of(clip).items()}
