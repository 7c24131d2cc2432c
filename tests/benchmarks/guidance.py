"""Which parts of a CLIP with an attention-pooling head shall masks guide: the head alone, or the trunk as well?

python -m tests.benchmarks.guidance

The CLIP is a miniature of PE-Core. Stem and text tower are those of the built-in model; trunk and head begin at random
and are pre-trained together on Shapes. Masks are those of the built-in model's proposals, the same for both ways. It
takes about nine minutes of CPU time a seed.
"""

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import LayerNorm
from timm.models import Eva, register_model
from torch import Tensor

from openvis_model.clip import ClipConfig, build_clip
from openvis_model.inst_former import InstFormer
from openvis_model.mask_proposal import PretrainedProposals
from openvis_model.options import GuidedParts, InstClipConfig
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.training.config import InstanceObjectiveConfig, SetCriterionConfig, StartConfig
from openvis_model.training.start import start_model
from openvis_model.vocabulary import Vocabulary
from openvis_model.weights.checkpoint import load_checkpoint, save_checkpoint
from openvis_model.weights.files import BUILT_IN, read_states
from pipelines.shapes.files import write_split
from pipelines.shapes.images import ShapesImagesConfig
from pipelines.shapes.render import MIN_VISIBLE, render
from pipelines.shapes.scenes import SceneConfig
from pipelines.training.config import OptimizerConfig, TrainingConfig
from pipelines.training.data import TrainingDataConfig
from pipelines.training.share import Share
from pipelines.training.stage_config import InstanceStageConfig, PretrainingConfig
from pipelines.training.stages import SHAPES_NAMES, InstanceStage, Pretraining
from pipelines.training.step import TrainingStep

SEEDS = (0, 1, 2)
PRETRAINING, STAGE_1 = 1000, 100
"""Steps of 32 pictures, and of 4 clips of 2 frames."""

VIDEOS, FRAMES, COVERED = 100, 250, 0.5
"""Training videos; frames of novel categories to compare on; IoU with a proposal that an object needs to count."""

WAYS: tuple[GuidedParts, ...] = ("head", "trunk_and_head")
STEM = "visual.conv1."
KINDS = ("untrained", "after stage 1")


@register_model
def openvis_miniature_pe(pretrained: bool = False, **kwargs: Any) -> Eva:
    """PE-Core in the sizes of the built-in CLIP, without rotary positions."""
    return Eva(
        img_size=96,
        patch_size=8,
        embed_dim=192,
        depth=4,
        num_heads=4,
        num_classes=kwargs["num_classes"],
        global_pool=kwargs["global_pool"],
        attn_type="rope",
        use_pre_transformer_norm=True,
        attn_pool_num_heads=4,
        attn_pool_mlp_ratio=4.0,
        norm_layer=partial(LayerNorm, eps=1e-5),
    )


def write_start(folder: Path) -> None:
    """Writes the built-in model with this CLIP instead of its own."""
    built_in = load_checkpoint(BUILT_IN)
    vision = {"image_size": 96, "timm_model_name": "openvis_miniature_pe", "timm_pool": "map", "timm_proj": None}
    config: ClipConfig = built_in.config.clip
    config = replace(config, architecture=config.architecture | {"vision_cfg": vision}, picture_size=None)
    clip = build_clip(config)
    own = read_states(BUILT_IN, ("clip",))["clip"]
    text = {name: tensor for name, tensor in own.items() if not name.startswith("visual.")}
    stem = {name.replace("conv1", "trunk.patch_embed.proj"): own[name] for name in own if name.startswith(STEM)}
    clip.load_state_dict(clip.state_dict() | text | stem)
    proposals = PretrainedProposals(built_in.mask_proposal.config, built_in.mask_proposal.network)
    save_checkpoint(InstFormer(replace(built_in.config, clip=config), clip=clip, proposals=proposals), folder)


def train(stage: Any, steps: int, batch_size: int, seed: int, optimizer: OptimizerConfig) -> Any:
    """Trains a stage in this process; returns its objective."""
    objective = stage.build(None)
    config = TrainingConfig(output="unused", steps=steps, batch_size=batch_size, seed=seed, optimizer=optimizer)
    step = TrainingStep(objective, config)
    share = Share(first_step=0, last_step=steps, batch_size=batch_size, rank=0, world_size=1)
    for number, samples in enumerate(stage.batches(share)):
        step(number, samples)
    return objective.eval()


def pretrain(start: Path, seed: int, folder: Path) -> float:
    """Pre-trains the CLIP on pictures of an object among others; returns its top-1 on other such pictures."""
    images = ShapesImagesConfig(objects=(2, 6), seed=seed)
    stage = Pretraining(PretrainingConfig(start=str(start), images=images, seed=seed))
    optimizer = OptimizerConfig(
        learning_rate=5e-4, betas=(0.9, 0.98), clip_norm=1.0, schedule="cosine", warmup_steps=PRETRAINING // 10
    )
    objective = train(stage, PRETRAINING, 32, seed, optimizer)
    objective.save(folder)
    return stage.validate(objective, 0, 1)["top-1"]


def fine_tune(start: StartConfig, annotations: str, seed: int) -> InstFormer:
    """Trains stage 1 as `jobs/configs/mini/5_stage_1.yaml` does, but for fewer steps."""
    data = TrainingDataConfig(
        annotations=annotations, frames=2, max_stride=6, height=96, width=128, flip=0.0, seed=seed
    )
    objective = InstanceObjectiveConfig(criterion=SetCriterionConfig(num_points=1024, no_object_weight=1.0))
    stage = InstanceStage(InstanceStageConfig(start=start, data=data, objective=objective))
    optimizer = OptimizerConfig(
        learning_rate=2e-4, backbone_factor=1.0, clip_norm=1.0, schedule="cosine", warmup_steps=STAGE_1 // 10
    )
    model: InstFormer = train(stage, STAGE_1, 4, seed, optimizer).model
    return model.eval()


@torch.no_grad()
def top1(model: InstFormer) -> float:
    """Returns for how many objects of novel categories the nearest of all names is right.

    An object counts if a proposal covers it; the instance token is that of the best one.
    """
    names = embed_vocabulary(Vocabulary.of_dataset(SHAPES_NAMES), model.text_encoder).embeddings
    hits = [hit for number in range(FRAMES) for hit in _hits(model, names, number)]
    return statistics.mean(hits)


def _hits(model: InstFormer, names: Tensor, number: int) -> Iterator[bool]:
    scene = render(SceneConfig(frames=1), "novel", 0, number)
    masks = torch.from_numpy(scene.masks[:, 0])
    frames = torch.from_numpy(scene.frames)
    logits = model.mask_proposal(frames).mask_logits
    proposed = F.interpolate(logits, size=masks.shape[-2:], mode="bilinear")[0] > 0
    common = (masks[:, None] & proposed).sum((-1, -2))
    covered, best = (common / (masks[:, None] | proposed).sum((-1, -2))).max(1)
    tokens = model.classifier(frames, logits[:, best], best[None])[0]
    for area, iou, category, nearest in zip(
        masks.sum((-1, -2)), covered, scene.categories, (tokens @ names.T).argmax(1), strict=True
    ):
        if area >= MIN_VISIBLE and iou >= COVERED:
            yield int(nearest) == category


def main() -> None:
    """Prints top-1 of both ways for each seed, and the mean and range of their difference."""
    torch.set_num_threads(1)
    found: dict[tuple[str, GuidedParts], list[float]] = {(kind, way): [] for kind in KINDS for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        annotations = str(write_split(folder, "train", VIDEOS, 0, SceneConfig()).path / "instances.json")
        for seed in SEEDS:
            torch.manual_seed(seed)
            write_start(folder / f"start_{seed}")
            pictures = pretrain(folder / f"start_{seed}", seed, folder / f"clip_{seed}")
            print(
                f"seed {seed}: CLIP itself, on pictures of an object among others: {100 * pictures:.1f} %", flush=True
            )
            for way in WAYS:
                start = StartConfig(
                    checkpoint=str(folder / f"start_{seed}"),
                    clip=str(folder / f"clip_{seed}"),
                    inst_clip=InstClipConfig(guided=way),
                    seed=seed,
                )
                models = (start_model(start, SHAPES_NAMES), fine_tune(start, annotations, seed))
                for kind, model in zip(KINDS, models, strict=True):
                    found[kind, way].append(100 * top1(model))
                    print(f"  {way:<16}{kind:<16}{found[kind, way][-1]:5.1f} %", flush=True)
    for kind in KINDS:
        better = [both - head for head, both in zip(*(found[kind, way] for way in WAYS), strict=True)]
        print(
            f"{kind}: trunk and head better by {statistics.mean(better):+.1f} points "
            f"({min(better):+.1f} to {max(better):+.1f} over {len(better)} seeds)"
        )


if __name__ == "__main__":
    main()
