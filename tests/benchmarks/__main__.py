"""The model: one table of ratios from one run, at ViT-B/32 sizes (N = 100 instances, 640 × 384 pixels).

Weights are random: speed does not depend on them. What is compared takes turns, and the least disturbed turn counts, as
in timeit: what else a machine does only ever adds time.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco
from torch import Tensor

from openvis_model.clip import ClipConfig, build_clip
from openvis_model.config import paper
from openvis_model.crop_clip import CropClip
from openvis_model.inst_clip import InstClip
from openvis_model.inst_former import InstFormer
from openvis_model.instances import Instances
from openvis_model.options import LORA_TARGETS, AssociationConfig, RolloutTrackerConfig, VideoTrackerConfig
from openvis_model.rle import RleMasks, encode_logits
from openvis_model.rollout_tracker import RolloutTracker
from openvis_model.video_tracker import TrackerState, VideoTracker
from openvis_model.vocabulary import VocabularyEmbedding
from openvis_model.weights.checkpoint import fold
from tests.reference import dense_encode, dense_mask

N, HEIGHT, WIDTH, D, C = 100, 384, 640, 512, 256
CLIP = ClipConfig(model="ViT-B-32-quickgelu")


def best(candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each candidate's fastest turn; a first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: min(taken[1:]) for name, taken in seconds.items()}


def row(name: str, seconds: float, ratio: float | None, meaning: str) -> None:
    """Prints one line of the table."""
    print(f"{name:<44}{1e3 * seconds:>10.1f} ms{'' if ratio is None else f'{ratio:>9.2f} ×':>11}  {meaning}")


def blobs(generator: torch.Generator) -> Tensor:
    """Mask logits [N, 96, 160] like a model's: smooth bumps of 1 to 30 % of the frame, every twentieth mask empty."""
    y, x = torch.meshgrid(torch.linspace(0, 0.6, 96), torch.linspace(0, 1, 160), indexing="ij")
    cy, cx, area = torch.rand(3, N, 1, 1, generator=generator)
    radius = (0.6 * (0.01 + 0.29 * area) / torch.pi).sqrt()
    logits = 8 * (1 - ((y - 0.6 * cy) ** 2 + (x - cx) ** 2).sqrt() / radius)
    logits += F.interpolate(torch.randn(1, N, 24, 40, generator=generator), size=(96, 160), mode="bilinear")[0]
    logits[::20] = -8
    return logits


def bench_proposals(generator: torch.Generator) -> None:
    """Mask2Former at inference against the module of transformers that is trained."""
    trained = InstFormer(paper())
    folded = fold(trained).mask_proposal
    for batch in (1, 8):
        frames = torch.randint(0, 256, (batch, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)
        result = best(
            {"folded": partial(folded, frames), "trained": partial(trained.mask_proposal, frames)},
            rounds=8 // batch + 1,
        )
        row(f"mask proposal, ResNet-50, batches of {batch}", result["folded"] / batch, None, "per frame")
        row(
            "  transformers' Mask2Former",
            result["trained"] / batch,
            result["trained"] / result["folded"],
            "this / ours",
        )


def bench_inst_clip(generator: torch.Generator) -> None:
    """One CLIP pass for all instances against dense masked attention and against one CLIP pass per instance."""
    frames = torch.randint(0, 256, (1, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)
    logits = blobs(generator)[None]
    index = torch.arange(N)[None]
    trained = InstFormer(paper())
    model, merged = fold(trained).classifier, without_adapters(trained.classifier)
    plain = build_clip(CLIP).visual.eval()
    tokens, mask = torch.randn(1, 1 + N + 240, 768), dense_mask(torch.randn(1, N, 240), register=1)[0]
    crops = CropClip(build_clip(CLIP).visual, short_side=HEIGHT).eval()
    fast = best(
        {
            "two": lambda: model(frames, logits, index),
            "dense": lambda: dense_encode(merged, frames, logits, index),
            "open_clip": lambda: plain.transformer(tokens, attn_mask=mask),
        },
        rounds=25,
    )
    slow = best(
        {
            "two": lambda: model(frames, logits, index),
            "twenty": lambda: model(frames, logits[:, :20], index[:, :20]),
            "crops": lambda: crops(frames, logits, index),
        },
        rounds=4,
    )
    row("InstCLIP, two streams", fast["two"], None, "per frame")
    row("  dense mask, adapters merged", fast["dense"], fast["two"] / fast["dense"], "two streams / this")
    row(
        "  dense mask, open_clip's transformer alone",
        fast["open_clip"],
        fast["two"] / fast["open_clip"],
        "two streams / this",
    )
    row("  InstCLIP, by turns with the two below", slow["two"], None, "per frame")
    row("  N crops through CLIP", slow["crops"], slow["crops"] / slow["two"], "this / two streams")
    row("InstCLIP with 20 of the instances kept", slow["twenty"], slow["crops"] / slow["twenty"], "N crops / this")


def without_adapters(classifier: InstClip | CropClip) -> InstClip:
    """Merges the adapters of an InstCLIP into its projections, in place."""
    assert isinstance(classifier, InstClip)
    for block in classifier.visual.transformer.resblocks:
        for name in LORA_TARGETS:
            projection = getattr(block.attn, name)
            projection.merge()
            setattr(block.attn, name, projection.get_base_layer())
    return classifier


def bench_rle(generator: torch.Generator) -> None:
    """Masks at frame size as COCO RLE with boxes and areas, from logits, against upsampling and pycocotools."""
    logits = blobs(generator)

    def plain(size: tuple[int, int]) -> None:
        dense = (F.interpolate(logits[None], size=size, mode="bilinear")[0] > 0).byte().permute(1, 2, 0)
        encoded = coco.encode(np.asfortranarray(dense.numpy()))
        coco.area(encoded), coco.toBbox(encoded)

    for size in ((HEIGHT, WIDTH), (720, 1280)):
        result = best({"ours": partial(encode_logits, logits, size), "plain": partial(plain, size)}, rounds=25)
        row(f"RLE from logits, {size[1]} × {size[0]}", result["ours"], None, "per frame")
        row("  upsample, then pycocotools", result["plain"], result["plain"] / result["ours"], "this / ours")


def bench_association(generator: torch.Generator) -> None:
    """Linking N instances to N tracks, and the whole step with scores for 1,196 names."""
    vocabulary = VocabularyEmbedding(
        tuple(map(str, range(1196))), F.normalize(torch.randn(1196, D, generator=generator), dim=-1), 100.0
    )
    rollout = RolloutTracker(RolloutTrackerConfig(), D + C)
    tracker = VideoTracker(VideoTrackerConfig(association=AssociationConfig(min_similarity=-1.0)), vocabulary, rollout)
    video = [instances(generator) for _ in range(4)]
    state, _ = tracker.step(TrackerState(), 0, video[0])
    result = best(
        {
            "link": lambda: [tracker.link(state, frame) for frame in video],
            "step": lambda: [tracker.step(state, 1, frame) for frame in video],
        },
        rounds=25,
    )
    row("association, rollout", result["link"] / len(video), None, "per frame")
    row("  with scores for 1,196 names", result["step"] / len(video), None, "per frame")


def instances(generator: torch.Generator) -> Instances:
    """N instances of one frame with random tokens."""
    masks = RleMasks((HEIGHT, WIDTH), (b"",) * N, np.full(N, 9), np.tile([0, 0, 3, 3], (N, 1)))
    tokens = F.normalize(torch.randn(N, D, generator=generator), dim=-1)
    queries, colours = torch.randn(N, C, generator=generator), torch.zeros(N, 3)
    return Instances(torch.ones(N), tokens, queries, torch.arange(N), colours, masks)


def main() -> None:
    """Runs every benchmark."""
    torch.manual_seed(0)
    load = os.getloadavg()[0]
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, float32, load {load:.1f}"
    )
    with torch.inference_mode():
        for bench in (bench_proposals, bench_inst_clip, bench_rle, bench_association):
            bench(torch.Generator().manual_seed(0))


if __name__ == "__main__":
    main()
