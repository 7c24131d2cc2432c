"""How well pictures stand for categories, alone and among words, and what calibration does.

python -m tests.benchmarks.exemplars

The built-in model names the objects of Shapes videos: 40 categories that it was trained on, and 200 novel ones. A
category is shown by one picture from another video: what a mask shows, what a box shows, or all of a cut-out. An object
counts if a proposal covers it; its embedding is that of a track. Last, pictures of one object on a background look for
tracks of its category: by all of them, or by their most prominent object, as on the review page. It takes about three
minutes of CPU time.
"""

import statistics
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from openvis_model.calibration import calibrated
from openvis_model.exemplars import CheckedPicture, PictureContent, PictureExemplar
from openvis_model.frame_model import FrameModel
from openvis_model.picture_encoder import PictureEncoder
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import Vocabulary
from openvis_model.weights.folded_model import load
from pipelines.shapes.categories import BASE, CATEGORIES, NOVEL_SHOWN
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig, Split

VIDEOS, FRAMES, SEED = 100, 8, 5
COVERED = 0.5
"""IoU with a proposal that an object needs to count."""

PICTURE_SEED, AREA, MARGIN = 77, 250, 8
"""Seed of the videos that pictures are from; least area of an object in one; margin of a cut-out, pixels."""

DRAWS, SHOWN = 10, 50
"""Random choices of the categories that are shown: at least so many, and so many that `SHOWN` are shown in all."""

QUERIES, QUERY_SEED = 60, 9
"""Pictures of one object that look for tracks."""

SPLITS: tuple[tuple[Split, Sequence[int]], ...] = (("valid", BASE), ("novel", NOVEL_SHOWN))
WAYS = ("mask", "box", "cut out")

Rows = tuple[Tensor, Tensor]
Calibration = Callable[[Tensor, Tensor], Rows]
"""Embeddings of exemplars and of words to rows and offsets of the exemplars."""


def tracks(model: FrameModel, split: Split, categories: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Returns the embeddings of objects, as those of tracks, and the positions of their categories."""
    embeddings, truth = [], []
    for index in range(VIDEOS):
        clip = render(SceneConfig(frames=FRAMES), split, SEED, index)
        sums = torch.zeros(len(clip.categories), 128)
        for frame, instances in enumerate(model(torch.from_numpy(clip.frames), objectness_floor=0.5)):
            found, true = instances.masks.to_dense()[:, None], clip.masks[None, :, frame]
            common, either = (found & true).sum((2, 3)), (found | true).sum((2, 3))
            for number, overlap in enumerate(common / np.maximum(either, 1)):
                if overlap.max() >= COVERED:
                    token = instances.instance_tokens[number]
                    sums[int(overlap.argmax())] += instances.objectness[number] * token
        for category, total in zip(clip.categories, sums, strict=True):
            if total.any():
                embeddings.append(F.normalize(total, dim=0))
                truth.append(list(categories).index(category))
    return torch.stack(embeddings), torch.tensor(truth)


def pictures(encoder: PictureEncoder, split: Split, categories: Sequence[int]) -> dict[str, Tensor]:
    """Returns, for each way, the embedding of one picture of each category."""
    found: dict[int, dict[str, Tensor]] = {}
    index = 0
    while len(found) < len(categories):
        clip = render(SceneConfig(frames=1), split, PICTURE_SEED, index)
        for mask, category in zip(clip.masks[:, 0], clip.categories, strict=True):
            if category not in found and mask.sum() > AREA:
                found[category] = _embedded(encoder, clip.frames[0], mask)
        index += 1
    return {way: torch.stack([found[category][way] for category in categories]) for way in WAYS}


def _embedded(encoder: PictureEncoder, frame: np.ndarray, mask: np.ndarray) -> dict[str, Tensor]:
    (top, left), (bottom, right) = (edge(np.argwhere(mask), axis=0) for edge in (np.min, np.max))
    box = np.zeros_like(mask)
    box[top : bottom + 1, left : right + 1] = True
    rows = slice(max(0, top - MARGIN), bottom + MARGIN)
    cut_out = frame[rows, max(0, left - MARGIN) : right + MARGIN]
    shown = {"mask": (frame, mask), "box": (frame, box), "cut out": (cut_out, None)}
    return {way: encoder.embed(_exemplar(*content)) for way, content in shown.items()}


def _exemplar(pixels: np.ndarray, mask: np.ndarray | None) -> PictureExemplar:
    coverage = None if mask is None else 255 * mask.astype(np.uint8)
    content = PictureContent(np.ascontiguousarray(pixels), coverage, "")
    return PictureExemplar("shapes.png", content=CheckedPicture("", lambda: content))


def none(shown: Tensor, words: Tensor) -> Rows:
    """No calibration."""
    del words
    return shown, torch.zeros(len(shown))


def moments(reference: Tensor, scale: float, *, spread: bool) -> Calibration:
    """Aligns the mean of all logits of exemplars with that of words over a reference, and maybe their spread."""

    def calibration(shown: Tensor, words: Tensor) -> Rows:
        of_words, of_shown = (scale * reference @ rows.T for rows in (words, shown))
        factor = of_words.std() / of_shown.std() if spread else torch.tensor(1.0)
        return factor * shown, (of_words.mean() - factor * of_shown.mean()).expand(len(shown))

    return calibration


def over(reference: Tensor, scale: float) -> Calibration:
    """The calibration of openvis over a reference."""
    return lambda shown, words: calibrated(shown, words, reference, scale)


def accuracies(
    embeddings: Tensor, truth: Tensor, words: Tensor, shown: Tensor, scale: float, count: int, calibration: Calibration
) -> tuple[float, float, float]:
    """Returns the accuracy of all objects, of those of named and of those of shown categories, in percent.

    Args:
        embeddings: of the objects.
        truth: their categories.
        words: embedding of each category's name.
        shown: embedding of each category's picture.
        scale: CLIP's inverse temperature.
        count: categories that are shown, chosen at random.
        calibration: the way.
    """
    results = []
    for draw in range(max(DRAWS, SHOWN // count)):
        chosen = torch.zeros(len(words), dtype=torch.bool)
        among = sorted(set(truth.tolist())) if count < 10 else list(range(len(words)))
        chosen[np.random.default_rng(draw).choice(among, count, replace=False)] = True
        logits = scale * embeddings @ words.T
        rows, offset = calibration(shown[chosen], words[~chosen])
        logits[:, chosen] = scale * embeddings @ rows.T + offset
        right, is_shown = (logits.argmax(1) == truth).float(), chosen[truth]
        results.append([100 * float(part.mean()) for part in (right, right[~is_shown], right[is_shown])])
    every, named, seen = (statistics.mean(column) for column in zip(*results, strict=True))
    return every, named, seen


def found(model: FrameModel, embeddings: Tensor, truth: Tensor) -> dict[str, float]:
    """Returns for how many pictures of one object the most similar track has its category, in percent."""
    encoder = PictureEncoder(model.classifier, short_side=model.short_side)
    right: dict[str, list[bool]] = {"all of the picture": [], "the most prominent object": []}
    for index in range(QUERIES):
        clip = render(SceneConfig(frames=1, objects=(1, 1)), "novel", QUERY_SEED, index)
        category = NOVEL_SHOWN.index(clip.categories[0])
        if category in truth:
            (instances,) = model(torch.from_numpy(clip.frames))
            prominent = instances.instance_tokens[instances.objectness.argmax()]
            for way, query in zip(right, (encoder.embed(_exemplar(clip.frames[0], None)), prominent), strict=True):
                right[way].append(int(truth[(embeddings @ query).argmax()]) == category)
    return {way: 100 * statistics.mean(hits) for way, hits in right.items()}


def main() -> None:
    """Prints a table for each split, and how well pictures find tracks."""
    torch.set_grad_enabled(False)
    model = load()
    encoder = PictureEncoder(model.classifier, short_side=model.short_side)
    leaves = encoder.reference()
    for split, categories in SPLITS:
        vocabulary = embed_vocabulary(
            Vocabulary.of_dataset([CATEGORIES[number].name for number in categories]), model.text_encoder
        )
        words, scale = vocabulary.embeddings, vocabulary.logit_scale
        embeddings, truth = tracks(model, split, categories)
        shown = pictures(encoder, split, categories)
        print(f"\n{split}: {len(truth)} objects of {len(categories)} categories")
        print(f"words only: {100 * float(((embeddings @ words.T).argmax(1) == truth).float().mean()):.1f}")
        ways: dict[str, Calibration] = {
            "none": none,
            "mean, over the tracks": moments(embeddings, scale, spread=False),
            "mean and spread, over the tracks": moments(embeddings, scale, spread=True),
            "ours, over the tracks": over(embeddings, scale),
            "ours": over(leaves, scale),
        }
        mean = float((embeddings @ words.T).mean())
        for way, rows in shown.items():
            only = 100 * float(((embeddings @ rows.T).argmax(1) == truth).float().mean())
            print(f"{way}: exemplars only {only:.1f}")
            print(f"mean cosine with tracks {float((embeddings @ rows.T).mean()):.2f}, that of words {mean:.2f}")
            for count in (1, 5, len(categories) // 2):
                for name, calibration in ways.items():
                    every, named, seen = accuracies(embeddings, truth, words, rows, scale, count, calibration)
                    print(f"  {count:>3} shown, {name:<33} all {every:5.1f}  named {named:5.1f}  shown {seen:5.1f}")
    for way, share in found(model, embeddings, truth).items():
        print(f"found by {way}: {share:.1f}")


if __name__ == "__main__":
    main()
