from pathlib import Path

import pytest
import torch

from openvis_model.clip_towers import guided_tower
from openvis_model.options import GuidedParts
from tests.clips import random_clip, small_clip


@pytest.mark.parametrize(
    ("kind", "guided", "names"),
    [
        ("eva02", "trunk", ["instance_tokens"]),
        ("pe", "trunk_and_head", ["instance_tokens", "instance_probes"]),
        ("pe", "head", ["instance_probes"]),
        ("siglip", "head", ["instance_probes"]),
    ],
)
def test_tokens_start_as_the_class_token_and_as_the_probe(
    kind: str, guided: GuidedParts, names: list[str], tmp_path: Path
) -> None:
    tower = guided_tower(random_clip(small_clip(kind, tmp_path)).visual)
    trunk = tower.visual.trunk
    latent = None if trunk.attn_pool is None else trunk.attn_pool.latent[0, 0].clone()
    tower.split_attention()
    starts = tower.starts(guided)
    assert list(starts) == names
    if "instance_tokens" in starts:
        assert torch.equal(starts["instance_tokens"], trunk.cls_token[0, 0] + trunk.pos_embed[0, 0])
    if "instance_probes" in starts:
        assert latent is not None
        assert torch.equal(starts["instance_probes"], latent)


def test_the_class_token_follows_the_weights(tmp_path: Path) -> None:
    tower = guided_tower(random_clip(small_clip("eva02", tmp_path)).visual)
    before = tower.class_token
    assert before is not None
    tower.visual.trunk.cls_token = torch.nn.Parameter(tower.visual.trunk.cls_token + 1)
    assert torch.allclose(tower.starts("trunk")["instance_tokens"], before + 1)
