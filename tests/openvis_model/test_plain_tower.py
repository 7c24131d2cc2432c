import open_clip
import pytest
import torch

from openvis_model.plain_tower import PlainTower, check_vision_transformer
from tests.openvis_model.weights.published_clips import random_clip, small_clip


def test_it_describes_openais_vision_transformer() -> None:
    visual = random_clip(small_clip(quick_gelu=True)).visual
    tower = PlainTower(visual)
    assert (tower.activation, tower.heads) == ("QuickGELU", visual.transformer.resblocks[0].attn.num_heads)
    assert tower.embedding_width == visual.proj.shape[1]
    assert tower.rotation((2, 3)) is None
    assert tower.pool is None


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"attentional_pool": True, "attn_pooler_heads": 1}, "attention pooling"),
        ({"pool_type": "avg"}, "pool_type='avg'"),
        ({"ls_init_value": 0.1}, "layer scale"),
        ({"qk_norm": True}, "custom attention"),
    ],
)
def test_other_parts_are_refused(field: dict[str, object], message: str) -> None:
    vision = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
    with torch.device("meta"):
        visual = open_clip.CLIP(embed_dim=16, vision_cfg=vision | field, text_cfg={"width": 32, "heads": 2}).visual
    with pytest.raises(ValueError, match=f"clip: {message} is not part of CLIP.*use a model such as ViT-B-32"):
        check_vision_transformer(visual)
