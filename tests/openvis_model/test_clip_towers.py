from pathlib import Path

import open_clip
import pytest
from torch import nn

from openvis_model.clip_towers import TOWERS, guided_tower
from openvis_model.plain_tower import PlainTower
from openvis_model.timm_tower import TimmTower
from tests.clips import random_clip, small_clip
from tests.openvis_model.weights.published_clips import small_clip as plain_clip


def test_each_vision_transformer_is_of_one_kind(tmp_path: Path) -> None:
    visuals = {PlainTower: random_clip(plain_clip(quick_gelu=False)).visual}
    visuals[TimmTower] = random_clip(small_clip("eva02", tmp_path)).visual
    for kind, visual in visuals.items():
        assert [each for each in TOWERS if each.claims(visual)] == [kind]
        assert type(guided_tower(visual)) is kind


@pytest.mark.parametrize(("model", "name"), [("RN50", "ModifiedResNet"), ("swin_base_patch4_window7_224", "SwinTrans")])
def test_other_vision_towers_are_refused(model: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"expected a vision transformer, got {name}.*PE-Core-B-16"):
        guided_tower(_vision_tower(model))


def _vision_tower(model: str) -> nn.Module:
    import torch

    with torch.device("meta"):
        visual: nn.Module = open_clip.CLIP(**open_clip.get_model_config(model)).visual
    return visual
