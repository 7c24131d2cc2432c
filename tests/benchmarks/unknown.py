"""How well does `Track.unknown` tell objects of the vocabulary from others?

python -m tests.benchmarks.unknown

The built-in model tracks the objects of novel Shapes. Of the names that these videos show, K are drawn as vocabulary,
ten times; tracks that cover an object are to be told apart by whether its name was drawn. Then all or half of the
categories are shown by a picture each, with a mask, from other videos. It takes three minutes of CPU time.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import openvis_model as openvis
from openvis_model.calibration import calibrated, calibrated_alone
from openvis_model.frame_model import FrameModel
from openvis_model.picture_encoder import PictureEncoder
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import Vocabulary, VocabularyEmbedding
from pipelines.shapes.categories import CATEGORIES, NOVEL_SHOWN
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig
from tests.benchmarks.exemplars import pictures

VIDEOS, SEED, DRAWS = 150, 7, 10
COVERED = 0.5  # IoU over the video from which on a track is of an object
LIMITS = (0.05, 0.2)
NAMES = [category.name for category in CATEGORIES]

SCORES: dict[str, Callable[[VocabularyEmbedding, Tensor], Tensor]] = {
    "unknown": lambda embedding, tokens: embedding.unknown(tokens),
    "largest probability": lambda embedding, tokens: -embedding.probabilities(tokens).amax(-1),
    "margin": lambda embedding, tokens: -_margin(embedding.probabilities(tokens)),
    "energy": lambda embedding, tokens: -(embedding.logit_scale * tokens @ embedding.embeddings.mT).logsumexp(-1),
    "largest logit": lambda embedding, tokens: -(tokens @ embedding.embeddings.mT).amax(-1),
}
"""Larger for what is probably in no category."""


def _margin(probabilities: Tensor) -> Tensor:
    first, second = probabilities.topk(2).values.unbind(-1)
    return first - second


def tracks(segmenter: openvis.VideoSegmenter) -> Iterator[tuple[Tensor, int]]:
    """Yields the embedding and the category of each track that covers an object."""
    for index in range(VIDEOS):
        clip = render(SceneConfig(frames=16), "novel", SEED, index)
        shared, own = dict[int, np.ndarray](), dict[int, int]()
        for frame in segmenter.track(clip.frames):
            for track, mask in zip(frame.track_ids.tolist(), frame.masks.to_dense(), strict=True):
                shared[track] = shared.get(track, 0) + (clip.masks[:, frame.index] & mask).sum((1, 2))
                own[track] = own.get(track, 0) + mask.sum()
        areas = clip.masks.sum((1, 2, 3))
        for track in segmenter.finish():
            overlaps = shared[track.track_id] / (areas + own[track.track_id] - shared[track.track_id])
            if overlaps.max() > COVERED:
                yield track.embedding, clip.categories[overlaps.argmax()]


def auroc(scores: Tensor, positive: Tensor) -> float:
    """Returns the probability that a positive has the larger score."""
    larger = (scores[positive][:, None] > scores[~positive]).double().mean()
    equal = (scores[positive][:, None] == scores[~positive]).double().mean()
    return float(larger + equal / 2)


Draw = Callable[[Tensor], VocabularyEmbedding]
"""The categories that are drawn to their embedding."""


def draws(model: FrameModel) -> dict[str, Draw]:
    """Returns the ways in which the drawn categories may be given."""
    whole = embed_vocabulary(Vocabulary.of_dataset(NAMES), model.text_encoder, reference=True)
    encoder = PictureEncoder(model.classifier, short_side=model.short_side)
    leaves, scale = encoder.reference(), whole.logit_scale
    shown = torch.zeros_like(whole.embeddings)
    shown[torch.tensor(NOVEL_SHOWN)] = pictures(encoder, "novel", NOVEL_SHOWN)["mask"]
    assert whole.reference is not None
    names = whole.reference

    def words(drawn: Tensor) -> VocabularyEmbedding:
        return replace(whole, names=tuple(NAMES[each] for each in drawn), embeddings=whole.embeddings[drawn])

    def halves(drawn: Tensor) -> VocabularyEmbedding:
        half = len(drawn) // 2
        named = whole.embeddings[drawn[half:]]
        rows, offset = calibrated(shown[drawn[:half]], named, leaves, scale)
        offset = torch.cat([offset, torch.zeros(len(named))])
        return replace(words(drawn), embeddings=torch.cat([rows, named]), offset=offset)

    def alone(drawn: Tensor) -> VocabularyEmbedding:
        rows, offset, others, others_offset = calibrated_alone(shown[drawn], names, leaves, scale)
        compared = replace(whole, reference=others, reference_offset=others_offset)
        return replace(compared, names=words(drawn).names, embeddings=rows, offset=offset)

    return {"words": words, "half words, half pictures": halves, "pictures": alone}


def main() -> None:
    torch.set_num_threads(1)
    model = openvis.load()
    embeddings, categories = zip(*tracks(openvis.VideoSegmenter(model, NAMES, shots="none")), strict=True)
    tokens, shown = torch.stack(embeddings), torch.tensor(categories)
    print(f"{len(tokens)} tracks cover an object\n")
    limits = " | ".join(f"unknown > {limit}: others, known" for limit in LIMITS)
    print(f"| given by | names | {' | '.join(SCORES)} | {limits} |")
    print(f"|---|---:|{'---:|' * (len(SCORES) + len(LIMITS))}")
    for way, embed in draws(model).items():
        for count in (2, 5, 20, 50, 100, 500) if way == "words" else (2, 5, 20, 50, 100):
            areas, shares = measured(embed, tokens, shown, count)
            cells = [f"{value:.3f}" for value in areas]
            cells += [f"{positive:.0%}, {negative:.0%}" for positive, negative in shares]
            print(f"| {way} | {count} | {' | '.join(cells)} |", flush=True)


def measured(embed: Draw, tokens: Tensor, shown: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the AUROC of each score, and the shares of others and of known objects above each limit."""
    rng = np.random.default_rng(count)
    areas, shares = list[list[float]](), list[list[tuple[float, float]]]()
    for _ in range(DRAWS):
        numbers = rng.choice(NOVEL_SHOWN, min(count, 100), replace=False)
        rest = np.setdiff1d(np.arange(len(NAMES)), NOVEL_SHOWN)
        drawn = torch.tensor(np.concatenate([numbers, rng.choice(rest, count - len(numbers), replace=False)]))
        embedding, others = embed(drawn), ~torch.isin(shown, drawn)
        if others.all():
            continue
        areas.append([auroc(score(embedding, tokens), others) for score in SCORES.values()])
        told = [embedding.unknown(tokens) > limit for limit in LIMITS]
        shares.append([(float(each[others].double().mean()), float(each[~others].double().mean())) for each in told])
    return np.mean(areas, 0), np.mean(shares, 0)


if __name__ == "__main__":
    main()
