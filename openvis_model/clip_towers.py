"""The kinds of CLIP that InstCLIP can be built on."""

from torch import nn

from openvis_model.guided_tower import GuidedTower
from openvis_model.plain_tower import PlainTower
from openvis_model.timm_tower import TimmTower

TOWERS: tuple[type[GuidedTower], ...] = (PlainTower, TimmTower)
"""One entry for each kind of vision transformer."""


def guided_tower(visual: nn.Module) -> GuidedTower:
    """Returns what InstCLIP needs of a CLIP's vision transformer.

    Raises:
        ValueError: for another vision tower.
    """
    for kind in TOWERS:
        if kind.claims(visual):
            return kind(visual)
    name = type(getattr(visual, "trunk", visual)).__name__
    raise ValueError(
        f"clip: expected a vision transformer, got {name}; use a model such as ViT-B-32, EVA02-B-16, PE-Core-B-16 or "
        "ViT-B-16-SigLIP2"
    )
