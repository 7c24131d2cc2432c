"""Why do some rows of the ablations not differ? What they change, on the same frames of novel categories.

python -m tests.benchmarks.undecided [NAME=CHECKPOINT ...]

Guidance and register: the instance tokens of the same proposals, made by the built-in model as it is and with the part
exchanged. Margin loss: how near the queries of a frame are to each other, in the built-in model and in those given. It
takes a minute.
"""

import sys
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from openvis_model.inst_clip import InstClip
from openvis_model.inst_former import InstFormer
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.training.config import InstanceObjectiveConfig
from openvis_model.vocabulary import Vocabulary
from openvis_model.weights.checkpoint import load_checkpoint
from openvis_model.weights.files import BUILT_IN
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig

VIDEOS, SEED = 60, 51
FRAMES = 4


def binary(inst_clip: InstClip) -> None:
    inst_clip.config = replace(inst_clip.config, guidance="binary")


def no_register(inst_clip: InstClip) -> None:
    inst_clip.register_token = None


CHANGES: dict[str, Callable[[InstClip], None]] = {"binary guidance": binary, "no register": no_register}


def tokens(model: InstFormer, frames: Tensor) -> Tensor:
    """Returns the instance tokens of the proposals that are taken for objects, [objects, D]."""
    proposals = model.mask_proposal(frames)
    index = torch.arange(model.classifier.num_queries).expand(len(frames), -1)
    embedded: Tensor = model.classifier(frames, proposals.mask_logits, index)
    return embedded[proposals.objectness_logits > 0]


def cosines(model: InstFormer, frames: Tensor) -> Tensor:
    """Returns the cosine of each pair of queries in each frame, [pairs]."""
    queries = F.normalize(model.mask_proposal(frames).queries, dim=-1)
    above = torch.ones(queries.shape[1], queries.shape[1], dtype=torch.bool).triu(1)
    return (queries @ queries.mT)[:, above].flatten()


@torch.inference_mode()
def main() -> None:
    """Prints the figures."""
    torch.set_num_threads(1)
    models = {"built-in": BUILT_IN} | dict(each.split("=", 1) for each in sys.argv[1:])
    clips = [render(SceneConfig(frames=FRAMES), "novel", SEED, index) for index in range(VIDEOS)]
    batches = [torch.from_numpy(clip.frames) for clip in clips]

    model = load_checkpoint(BUILT_IN).eval()
    vocabulary = embed_vocabulary(
        Vocabulary.of_dataset([category.name for category in CATEGORIES]), model.text_encoder
    ).embeddings
    usual = torch.cat([tokens(model, frames) for frames in batches])
    print(f"{len(usual)} proposals in {VIDEOS * FRAMES} frames")
    for name, change in CHANGES.items():
        other = load_checkpoint(BUILT_IN).eval()
        change(other.classifier)
        changed = torch.cat([tokens(other, frames) for frames in batches])
        near = (usual * changed).sum(-1)
        same = ((usual @ vocabulary.T).argmax(-1) == (changed @ vocabulary.T).argmax(-1)).float().mean()
        print(f"{name}: cosine {near.median():.3f} (median), {near.quantile(0.05):.3f} (5 %); {same:.1%} same name")
    margin = InstanceObjectiveConfig().margin
    for name, path in models.items():
        found = torch.cat([cosines(load_checkpoint(path).eval(), frames) for frames in batches])
        loss = (found - margin).clamp(min=0).mean()
        print(
            f"{name}: cosine of two queries {found.median():.2f} (median), {found.quantile(0.95):.2f} (95 %); "
            f"{(found > margin).float().mean():.1%} above the margin of {margin:g}, loss {loss:.3f}"
        )


if __name__ == "__main__":
    main()
