from dataclasses import replace
from typing import get_args

import pytest
import torch
from peft import get_peft_model_state_dict

from openvis_model.clip import ClipConfig
from openvis_model.config import mini
from openvis_model.folded.inst_clip import FoldedInstClip
from openvis_model.inst_clip import InstClip
from openvis_model.options import Guidance, InstClipConfig
from openvis_model.towers import VisionTowerConfig
from tests.networks import perturbed, random_adapters
from tests.words import WORDS

MINI = mini(WORDS).clip


def both(clip: ClipConfig, config: InstClipConfig, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Instance tokens of a trained InstCLIP and of the folded one."""
    network = perturbed(clip)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trained = InstClip(config, network.visual, num_queries=8, short_side=96).eval()
    random_adapters(trained)
    tokens = {name: tensor for name, tensor in trained.state_dict().items() if not name.startswith("visual.")}
    adapters = {f"base_model.model.{k}": v for k, v in get_peft_model_state_dict(trained.visual).items()}
    folded = FoldedInstClip(
        config,
        vars(clip),
        VisionTowerConfig.of(clip.architecture),
        state=state,
        tokens=tokens,
        adapters=adapters,
        short_side=96,
    )
    frames = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    masks = torch.nn.functional.interpolate(4 * torch.randn(2, 4, 5, 7) - 1, size=(24, 32), mode="bilinear")
    masks[:, 2] = -20
    index = torch.tensor([[0, 3, 5, 7], [1, 2, 3, 4]])
    with torch.inference_mode():
        return trained(frames, masks, index), folded(frames, masks, index)


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("stem", ["patches", "convolutional"])
@pytest.mark.parametrize("size", [(96, 96), (96, 128)])
def test_tokens_are_those_of_the_trained_network(quick_gelu: bool, stem: str, size: tuple[int, int]) -> None:
    clip = replace(MINI, architecture=MINI.architecture | {"quick_gelu": quick_gelu}, stem=stem)
    trained, folded = both(clip, InstClipConfig(), size)
    torch.testing.assert_close(folded, trained, rtol=0, atol=2e-6)


@pytest.mark.parametrize("guidance", get_args(Guidance))
@pytest.mark.parametrize("register", [False, True])
def test_every_variant(guidance: Guidance, register: bool) -> None:
    trained, folded = both(MINI, InstClipConfig(guidance=guidance, register=register, lora_rank=3), (96, 128))
    torch.testing.assert_close(folded, trained, rtol=0, atol=2e-6)
