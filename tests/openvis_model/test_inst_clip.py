import copy
from typing import get_args

import open_clip
import pytest
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

from openvis_model.clip import ClipConfig
from openvis_model.config import mini
from openvis_model.guided_attention import InstanceGuidanceAttention
from openvis_model.inst_clip import InstClip
from openvis_model.options import Guidance, InstClipConfig, Resampling
from tests.networks import perturbed, random_adapters
from tests.reference import dense_attention, dense_encode, dense_mask
from tests.words import WORDS

CLIPS = {
    "ViT-B-32": ClipConfig(model="ViT-B-32"),
    "ViT-B-32-quickgelu": ClipConfig(model="ViT-B-32-quickgelu"),
    "mini": mini(WORDS).clip,
}


@pytest.fixture
def mini_clip() -> open_clip.CLIP:
    return perturbed(CLIPS["mini"])


def inst_clip(clip: open_clip.CLIP, **config: object) -> InstClip:
    return InstClip(InstClipConfig(**config), clip.visual, num_queries=8, short_side=96).eval()


@pytest.fixture
def mask_logits() -> Tensor:
    """Four masks a frame, the third one empty."""
    logits = torch.nn.functional.interpolate(4 * torch.randn(2, 4, 5, 7) - 1, size=(24, 32), mode="bilinear")
    logits[:, 2] = -20
    return logits


@pytest.mark.parametrize("name", CLIPS)
def test_identities_with_open_clip(name: str) -> None:
    """Register and unguided instance tokens equal CLIP's image embedding while the adapters are at zero."""
    clip = perturbed(CLIPS[name])
    reference = copy.deepcopy(clip)
    size = clip.visual.image_size[0]
    model = InstClip(InstClipConfig(guidance="none"), clip.visual, num_queries=5, short_side=size).eval()
    frames = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        mean, std = torch.tensor(OPENAI_DATASET_MEAN), torch.tensor(OPENAI_DATASET_STD)
        expected = reference.encode_image(((frames / 255 - mean) / std).permute(0, 3, 1, 2))
        instances, register = model.encode(frames, torch.randn(2, 3, 8, 8), torch.tensor([[0, 4, 2]] * 2))
    assert (register - expected[:, None]).abs().max() <= 1e-5
    assert (instances - expected[:, None]).abs().max() <= 1e-5


def test_without_register_an_instance_token_is_not_clips_embedding(mini_clip: open_clip.CLIP) -> None:
    """Without a register the patches lose CLIP's class token: the identities hold because of the register."""
    reference = copy.deepcopy(mini_clip)
    model = inst_clip(mini_clip, guidance="none", register=False)
    frames = torch.randint(0, 256, (1, 96, 96, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = reference.encode_image((frames.permute(0, 3, 1, 2) / 255 - model.mean) / model.std)
        instances, register = model.encode(frames, torch.randn(1, 2, 8, 8), torch.tensor([[0, 1]]))
    assert register.shape[1] == 0
    assert (instances[:, 0] - expected).abs().max() > 1e-4


@pytest.mark.parametrize("register", [True, False])
@pytest.mark.parametrize(
    ("guidance", "resampling"),
    [*(("logits", resampling) for resampling in get_args(Resampling)), ("binary", "max_logit"), ("none", "max_logit")],
)
def test_two_streams_equal_dense_attention(
    mini_clip: open_clip.CLIP, mask_logits: Tensor, guidance: Guidance, resampling: Resampling, register: bool
) -> None:
    """Outputs and gradients of the two streams equal one dense masked pass, an empty mask included."""
    model = inst_clip(mini_clip, guidance=guidance, resampling=resampling, register=register)
    random_adapters(model)
    frames = torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8)
    query_index = torch.tensor([[0, 3, 5, 7], [1, 2, 6, 4]])

    results = []
    for encode in (model.encode, lambda *arguments: dense_encode(model, *arguments)):
        logits = mask_logits.clone().requires_grad_()
        model.zero_grad()
        instances, registers = encode(frames, logits, query_index)
        (instances.square().sum() + registers.sum()).backward()
        gradients = [parameter.grad.clone() for parameter in model.trainable_parameters()]
        guided = logits.grad if logits.grad is not None else torch.zeros_like(logits)
        results.append([instances, registers, guided, *gradients])
    for streams, dense in zip(*results, strict=True):
        assert torch.isfinite(dense).all()
        assert (streams - dense).abs().max() <= 1e-5 * max(1, dense.abs().max().item()) if dense.numel() else True


def test_one_layer_at_vit_b_32_sizes_equals_dense_attention() -> None:
    """The layer alone, with the paper's widths, random guidance and one instance that is guided nowhere."""
    attention = InstanceGuidanceAttention(torch.nn.MultiheadAttention(768, 12, batch_first=True)).requires_grad_(False)
    N, P = 100, 240
    tokens = torch.randn(1, P + 1 + N, 768)  # [patches, register, instances]
    guidance = torch.randn(1, N, P).masked_fill(torch.rand(1, N, P) < 0.3, float("-inf"))
    guidance[:, 7] = float("-inf")
    paper_order = torch.cat([tokens[:, P : P + 1], tokens[:, P + 1 :], tokens[:, :P]], dim=1)
    dense = dense_attention(attention, paper_order, dense_mask(guidance, register=1))
    expected = torch.cat([dense[:, 1 + N :], dense[:, :1], dense[:, 1 : 1 + N]], dim=1)
    assert (attention(tokens, guidance, 0) - expected).abs().max() <= 1e-5
    assert (attention(tokens, guidance, P) - expected[:, P:]).abs().max() <= 1e-5


def test_dense_mask_is_the_table_of_the_design() -> None:
    inf = float("inf")
    mask = dense_mask(torch.tensor([[[0.5, -1.0], [-2.0, 0.25]]]), register=1)[0]
    assert mask.tolist() == [
        [0, -inf, -inf, 0, 0],
        [-inf, 0, -inf, 0.5, -1.0],
        [-inf, -inf, 0, -2.0, 0.25],
        [0, -inf, -inf, 0, 0],
        [0, -inf, -inf, 0, 0],
    ]


def test_attention_worked_by_hand() -> None:
    """Eq. 3 for one head of width 1, two patches, register, one instance; all projections are the identity.

    Tokens: patches 1 and 2, register 0, instance 1; guidance (0, -inf). The instance attends to patch 1 (score
    1·1 + 0) and itself (score 1·1): half each, 0.5·1 + 0.5·1 = 1. With guidance (0, 0) the scores are (1, 2) and 1:
    (e·1 + e²·2 + e·1) / (2e + e²) = (2 + 2e) / (2 + e) = 1.5761. The register (0) weighs 1, 2, 0 equally: 1.
    """
    attention = InstanceGuidanceAttention(torch.nn.MultiheadAttention(1, 1, batch_first=True))
    with torch.no_grad():
        for projection in attention.children():
            projection.weight.fill_(1)
            projection.bias.fill_(0)
    tokens = torch.tensor([[[1.0], [2.0], [0.0], [1.0]]])
    masked = attention(tokens, torch.tensor([[[0.0, -float("inf")]]]), 0)
    free = attention(tokens, torch.zeros(1, 1, 2), 0)
    assert masked[0, 3, 0].item() == pytest.approx(1.0)
    assert free[0, 3, 0].item() == pytest.approx(1.5761, abs=1e-4)
    assert free[0, 2, 0].item() == pytest.approx(1.0)


def test_instances_do_not_depend_on_each_other(mini_clip: open_clip.CLIP, mask_logits: Tensor) -> None:
    model = inst_clip(mini_clip)
    random_adapters(model)
    frames = torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8)
    query_index = torch.arange(4).expand(2, -1)
    together = model(frames, mask_logits, query_index)
    alone = model(frames[1:], mask_logits[1:, 3:], query_index[1:, 3:])
    assert (together[1:, 3:] - alone).abs().max() <= 1e-6
    assert (together.norm(dim=-1) - 1).abs().max() <= 1e-6


def test_no_instances(mini_clip: open_clip.CLIP) -> None:
    frames = torch.zeros(2, 96, 128, 3, dtype=torch.uint8)
    tokens = inst_clip(mini_clip)(frames, torch.zeros(2, 0, 24, 32), torch.zeros(2, 0, dtype=torch.long))
    assert tokens.shape == (2, 0, 128)


def test_adapters_are_on_query_and_value_only(mini_clip: open_clip.CLIP) -> None:
    model = inst_clip(mini_clip)
    names = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert len(names) == 4 * 2 * 2  # layers · (q, v) · (A, B)
    assert all(".q_proj." in name or ".v_proj." in name for name in names)


def test_other_vision_towers_are_refused() -> None:
    with pytest.raises(ValueError, match="ModifiedResNet"):
        InstClip(InstClipConfig(), open_clip.create_model("RN50").visual, num_queries=2, short_side=96)
