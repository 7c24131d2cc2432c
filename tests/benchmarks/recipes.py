"""Parameters and operations of the recipes: nothing is fetched, and shapes alone go through the networks.

Operations are the multiplications and additions of matrix products, convolutions and attention for a frame of
640 × 360 pixels, as its two networks see it, with all N instances kept.
"""

import re
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from jobs.recipes import read_recipe, recipe_names
from openvis_model.clip import ClipConfig
from openvis_model.config import InstFormerConfig, paper
from openvis_model.inst_former import InstFormer
from openvis_model.mask_proposal import MaskProposalConfig
from pipelines.benchmark.stages import count_flops
from pipelines.recipes.recipe import Recipe

HEIGHT, WIDTH = 360, 640

PUBLISHED: dict[str, dict[str, Any]] = {"tue-mps/coco_instance_eomt_large_640": {"num_labels": 80}}
"""Where configs differ from the defaults of transformers. RF-DETR's is not known here."""


def config_of(recipe: Recipe) -> InstFormerConfig:
    """Returns the config that a published network and CLIP lead to."""
    source = recipe.proposals.source
    if backbone := re.search(r"swin-(tiny|small|base|large)-", source):
        proposals = paper(f"swin_{backbone[1]}").mask_proposal
    else:
        proposals = MaskProposalConfig(network="eomt", architecture=PUBLISHED[source])
    clip = ClipConfig(model=recipe.clip.source.partition("/")[0])
    return InstFormerConfig(short_side=recipe.short_side, mask_proposal=proposals, clip=clip)


@torch.no_grad()
def operations(model: InstFormer) -> tuple[float, float]:
    """Returns what a frame costs in the proposal network and in CLIP."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        frames = torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8)
        masks = model.mask_proposal(frames).mask_logits
        index = torch.arange(masks.shape[1])[None]
        return (
            count_flops(lambda: model.mask_proposal(frames)),
            count_flops(lambda: model.classifier(frames, masks, index)),
        )


def main() -> None:
    print(f"{'':<24}{'proposals':>18}{'CLIP, image':>18}{'CLIP, text':>12}")
    for name in recipe_names():
        if name.startswith("rfdetr"):
            continue
        model = InstFormer(config_of(read_recipe(name)))  # with random weights
        parts = (model.mask_proposal, model.classifier, model.text_encoder)
        proposals, image, text = (sum(each.numel() for each in part.parameters()) / 1e6 for part in parts)
        flops = operations(model)
        cells = (f"{proposals:.1f} M {flops[0] / 1e9:.0f} G", f"{image:.1f} M {flops[1] / 1e9:.0f} G")
        print(f"{name:<24}{cells[0]:>18}{cells[1]:>18}{text:>10.1f} M")


if __name__ == "__main__":
    main()
