import open_clip
import pytest

from openvis_model.clip import ClipConfig, build_clip
from openvis_model.towers import VisionTowerConfig


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
