import open_clip
import pytest

from openvis_model.clip import ClipConfig, build_clip
from openvis_model.towers import TextTowerConfig, VisionTowerConfig, is_timm


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-H-16"])
def test_sizes_are_open_clips(name: str) -> None:
    tower = VisionTowerConfig.of(open_clip.get_model_config(name))
    assert tower.quick_gelu == name.endswith("quickgelu")
    if tower.layers == 12:
        visual = build_clip(ClipConfig(model=name)).visual
        assert (tower.image_size, tower.image_size) == visual.image_size
        assert (tower.patch_size, tower.patch_size) == visual.patch_size
        block = visual.transformer.resblocks[-1]
        assert tower.width // tower.head_width == block.attn.num_heads
        assert tower.width * tower.mlp_ratio == block.mlp.c_fc.out_features


def test_another_tower_is_refused() -> None:
    with pytest.raises(ValueError, match=r"vision_cfg.no_ln_pre=True; use a model such as ViT-B-32"):
        VisionTowerConfig.of({"embed_dim": 8, "vision_cfg": {"no_ln_pre": True}})
    assert VisionTowerConfig.of({"vision_cfg": {"pool_type": "tok", "width": 48}}).width == 48


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("EVA02-B-16", TextTowerConfig(embed_dim=512)),
        ("PE-Core-B-16", TextTowerConfig(embed_dim=1024, context_length=32, width=1024, heads=16, layers=24)),
        (
            "ViT-B-16-SigLIP2",
            TextTowerConfig(
                embed_dim=768,
                context_length=64,
                vocab_size=256000,
                width=768,
                heads=12,
                causal=False,
                proj_bias=True,
                norm_eps=1e-6,
                gelu="tanh",
            ),
        ),
    ],
)
def test_text_towers_of_other_clips(name: str, expected: TextTowerConfig) -> None:
    architecture = open_clip.get_model_config(name)
    assert TextTowerConfig.of(architecture) == expected
    assert expected.special_tokens == (2 if expected.causal else 1)
    assert is_timm(architecture)
    assert not is_timm(open_clip.get_model_config("ViT-B-32"))
