import copy
from pathlib import Path
from typing import Any, get_args

import open_clip
import pytest
import torch
from open_clip.timm_model import TimmModel
from timm.models import Eva, VisionTransformer
from torch import Tensor, nn

from openvis_model.inst_clip import InstClip
from openvis_model.options import GuidedParts, InstClipConfig
from openvis_model.timm_tower import check_trunk
from tests.clips import SIZE, SMALL, TOWERS, random_clip, small_clip
from tests.networks import random_adapters

REAL = ("EVA02-B-16", "PE-Core-B-16", "ViT-B-16-SigLIP2")
CASES = [*((kind, None) for kind in TOWERS), ("pe", "head")]
INDEX = torch.tensor([[0, 4, 2], [1, 3, 0]])


def small_tower(kind: str, folder: Path) -> nn.Module:
    visual: nn.Module = random_clip(small_clip(kind, folder)).visual
    return visual


def inst_clip(visual: nn.Module, **config: Any) -> InstClip:
    return InstClip(InstClipConfig(**config), copy.deepcopy(visual), num_queries=5, short_side=SIZE).eval()


def images(model: InstClip, *size: int) -> tuple[Tensor, Tensor]:
    """Frames, and what CLIP's preprocessing makes of them."""
    frames = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8)
    return frames, ((frames / 255 - model.mean.flatten()) / model.std.flatten()).permute(0, 3, 1, 2)


def masks() -> Tensor:
    """Three masks a frame, the last one empty."""
    logits = torch.nn.functional.interpolate(4 * torch.randn(2, 3, 5, 7) - 1, size=(24, 32), mode="bilinear")
    logits[:, 2] = -20
    return logits


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
@pytest.mark.parametrize(("kind", "guided"), CASES)
def test_identities_with_open_clip(
    kind: str, size: tuple[int, int], guided: GuidedParts | None, tmp_path: Path
) -> None:
    """Without guidance, register and instances are CLIP's image embedding, at its own size and at others."""
    visual = small_tower(kind, tmp_path)
    model = inst_clip(visual, guidance="none", guided=guided)
    frames, pixels = images(model, *size)
    visual.set_input_size(size)
    with torch.inference_mode():
        expected = visual(pixels)
        instances, register = model.encode(frames, masks(), INDEX)
    assert register.shape[1] == (kind not in ("pe_gigantic", "siglip"))
    assert (instances - expected[:, None]).abs().max() <= 1e-5
    assert register.numel() == 0 or (register - expected[:, None]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", REAL)
def test_identities_at_full_size(name: str) -> None:
    architecture = open_clip.get_model_config(name)
    vision = architecture["vision_cfg"]
    visual = TimmModel(
        vision["timm_model_name"], architecture["embed_dim"], pool=vision["timm_pool"], proj=vision["timm_proj"]
    ).eval()
    with torch.no_grad():
        visual.trunk.head.weight.mul_(1000) if name != "ViT-B-16-SigLIP2" else None  # timm starts it near zero
    model = InstClip(InstClipConfig(guidance="none"), copy.deepcopy(visual), num_queries=5, short_side=224).eval()
    frames, pixels = images(model, 224, 224)
    with torch.inference_mode():
        expected = visual(pixels)
        instances, _ = model.encode(frames, masks(), INDEX)
    assert expected.abs().mean() > 0.05
    assert (instances - expected[:, None]).abs().max() <= 1e-5


@pytest.mark.parametrize(("kind", "guided"), CASES)
def test_guided_instances_equal_timms_masked_attention(kind: str, guided: GuidedParts | None, tmp_path: Path) -> None:
    """timm's own modules, with an instance as a further class token and guidance as a mask, one instance at a time."""
    visual = small_tower(kind, tmp_path)
    model = inst_clip(visual, guided=guided)
    with torch.no_grad():
        for name in model.token_names:
            model.get_parameter(name).add_(0.1 * torch.randn(5, 48))
    frames, pixels = images(model, SIZE, SIZE)
    logits = masks()
    with torch.inference_mode():
        instances, _ = model.encode(frames, logits, INDEX)
        for frame in range(2):
            for number, query in enumerate(INDEX[frame]):
                guidance = _guidance(logits[frame, number])
                expected = _by_timm(visual, model, pixels[frame], guidance, int(query))
                assert (instances[frame, number] - expected).abs().max() <= 1e-5


def _guidance(logits: Tensor) -> Tensor:
    mean = torch.nn.functional.adaptive_avg_pool2d(logits.sigmoid()[None], SIZE // 16)
    return mean.clamp(min=1e-30).log().flatten()


def _by_timm(visual: nn.Module, model: InstClip, pixels: Tensor, guidance: Tensor, query: int) -> Tensor:
    """One instance of one image; the sequence is [class token, instance token, patches]."""
    trunk = copy.deepcopy(visual.trunk)
    classes = int(trunk.cls_token is not None)
    joined = int("instance_tokens" in model.token_names)
    patches = trunk.patch_embed(pixels[None]) + trunk.pos_embed[:, classes:]
    tokens = [trunk.cls_token + trunk.pos_embed[:, :1]] if classes else []
    tokens += [model.instance_tokens[query][None, None]] if joined else []
    x = trunk.norm_pre(torch.cat([*tokens, patches], 1))
    mask = torch.zeros(x.shape[1], x.shape[1])
    if joined:
        mask[:, classes] = float("-inf")  # nobody looks at the instance, but itself, and it not at the class token
        mask[classes, :classes], mask[classes, classes] = float("-inf"), 0
        mask[classes, classes + 1 :] = guidance
    rope = getattr(trunk, "rope", None)
    for block in trunk.blocks:
        if rope is not None:
            block.attn.num_prefix_tokens = classes + joined
        x = block(x, attn_mask=mask) if rope is None else block(x, rope=rope.get_embed(), attn_mask=mask)
    x = trunk.norm(x)
    if trunk.attn_pool is None:
        return visual.head(trunk.head(x[:, 1]))[0]
    trunk.attn_pool.latent = nn.Parameter(model.get_parameter("instance_probes")[query][None, None])
    own = [torch.zeros(1)] if classes else []
    pooled = trunk.attn_pool(x[:, joined:], attn_mask=torch.cat([*own, guidance])[None])
    return visual.head(trunk.head(pooled))[0]


@pytest.mark.parametrize("kind", TOWERS)
def test_instances_do_not_depend_on_each_other_nor_the_image_on_them(kind: str, tmp_path: Path) -> None:
    model = inst_clip(small_tower(kind, tmp_path))
    random_adapters(model)
    frames, _ = images(model, SIZE, 96)
    logits = masks()
    together, register = model.encode(frames, logits, INDEX)
    alone, _ = model.encode(frames[1:], logits[1:, 1:2], INDEX[1:, 1:2])
    none, same = model.encode(frames, logits[:, :0], INDEX[:, :0])
    assert (together[1:, 1:2] - alone).abs().max() <= 1e-6
    assert none.shape == (2, 0, 48)
    assert register.numel() == 0 or (register - same).abs().max() <= 1e-6


@pytest.mark.parametrize("kind", TOWERS)
def test_positions_are_made_once_for_each_size_after_merging(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, made = inst_clip(small_tower(kind, tmp_path)), list[tuple[int, int]]()
    rotation = type(model.tower).rotation
    monkeypatch.setattr(type(model.tower), "rotation", lambda self, grid: made.append(grid) or rotation(self, grid))
    frames, logits = [images(model, SIZE, width)[0] for width in (SIZE, 96)] * 2, masks()
    with torch.inference_mode():
        before = [model(each, logits, INDEX) for each in frames]
        assert len(made) == 4
        model.merge_adapters()
        after = [model(each, logits, INDEX) for each in frames]
    assert made[4:] == [(4, 4), (4, 6)]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", TOWERS)
def test_half_precision_differs_by_its_rounding_alone(kind: str, tmp_path: Path) -> None:
    model = inst_clip(small_tower(kind, tmp_path))
    frames, _ = images(model, SIZE, SIZE)
    logits = masks()
    with torch.inference_mode():
        expected = model(frames, logits, INDEX)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (model(frames, logits, INDEX).float() - expected).abs().max() < 0.03


@pytest.mark.parametrize("register", [True, False])
@pytest.mark.parametrize("kind", TOWERS)
def test_a_mask_that_touches_nothing_gives_numbers(kind: str, register: bool, tmp_path: Path) -> None:
    model = inst_clip(small_tower(kind, tmp_path), guidance="binary", register=register)
    frames, _ = images(model, SIZE, SIZE)
    assert model(frames, masks(), INDEX).isfinite().all()


@pytest.mark.parametrize("kind", TOWERS)
def test_adapters_are_on_query_and_value_of_trunk_and_head(kind: str, tmp_path: Path) -> None:
    model = inst_clip(small_tower(kind, tmp_path))
    names = {name.partition(".lora_")[0] for name, _ in model.visual.named_parameters() if "lora_" in name}
    trunk = {f"trunk.blocks.{block}.attn.{part}_proj" for block in range(3) for part in "qv"}
    assert names == trunk | ({"trunk.attn_pool.q_proj", "trunk.attn_pool.v_proj"} if TOWERS[kind] == "map" else set())


@pytest.mark.parametrize("kind", TOWERS)
def test_every_trained_parameter_gets_a_gradient(kind: str, tmp_path: Path) -> None:
    model = inst_clip(small_tower(kind, tmp_path)).requires_grad_(False)
    random_adapters(model)
    for parameter in model.trainable_parameters():
        parameter.requires_grad_(True)
    frames, _ = images(model, SIZE, SIZE)
    model(frames, masks(), INDEX)[..., 0].sum().backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert missing == []
    assert not any(p.grad is not None for p in model.parameters() if not p.requires_grad)


@pytest.mark.parametrize(
    ("kind", "guided"), [("eva02", "head"), ("pe_gigantic", "trunk_and_head"), ("siglip", "trunk")]
)
def test_parts_that_cannot_be_guided_are_named(kind: str, guided: GuidedParts, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"inst_clip\.guided: got '{guided}', but masks can guide (trunk|head) of"):
        inst_clip(small_tower(kind, tmp_path), guided=guided)
    assert guided in get_args(GuidedParts)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"init_values": 0.1}, "layer scale"),
        ({"qk_norm": True}, "normed queries and keys"),
        ({"num_reg_tokens": 2}, "registers of its own"),
        ({"use_abs_pos_emb": False}, "no learned positions"),
        ({"use_rot_pos_emb": True, "rope_rotate_half": True}, "other rotary positions"),
        ({"global_pool": "avg"}, "pooling 'avg'"),
        ({"patch_size": (16, 8)}, "non-square patches"),
    ],
)
def test_trunks_with_other_parts_are_refused(fields: dict[str, Any], message: str) -> None:
    trunk = Eva(**{**SMALL, "global_pool": "token", "num_classes": 8, **fields})
    with pytest.raises(ValueError, match=rf"clip: {message} in its vision transformer .*use e\.g\. EVA02-B-16"):
        check_trunk(trunk)


def test_a_head_that_ignores_the_class_token_is_refused() -> None:
    with pytest.raises(ValueError, match="a class token that its head ignores"):
        check_trunk(VisionTransformer(**SMALL, global_pool="map", num_classes=0))
