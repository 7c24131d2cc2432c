"""How well does `Track.unknown` tell objects of the vocabulary from others?

python -m tests.benchmarks.unknown

The built-in model tracks the objects of novel Shapes. Of the names that these videos show, K are drawn as vocabulary,
ten times; tracks that cover an object are to be told apart by whether its name was drawn. It takes two minutes.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import openvis_model as openvis
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import Vocabulary, VocabularyEmbedding
from pipelines.shapes.categories import CATEGORIES, NOVEL_SHOWN
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig

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


def main() -> None:
    torch.set_num_threads(1)
    model = openvis.load()
    embeddings, categories = zip(*tracks(openvis.VideoSegmenter(model, NAMES, shots="none")), strict=True)
    tokens, shown = torch.stack(embeddings), torch.tensor(categories)
    whole = embed_vocabulary(Vocabulary.of_dataset(NAMES), model.text_encoder, reference=True)
    print(f"{len(tokens)} tracks cover an object\n")
    print(f"| names | {' | '.join(SCORES)} | {' | '.join(f'unknown > {limit}: others, known' for limit in LIMITS)} |")
    print(f"|---:|{'---:|' * (len(SCORES) + len(LIMITS))}")
    for count in (2, 5, 20, 50, 100, 500):
        rng = np.random.default_rng(count)
        areas, shares = list[list[float]](), list[list[tuple[float, float]]]()
        for _ in range(DRAWS):
            drawn = rng.choice(NOVEL_SHOWN, min(count, 100), replace=False)
            rest = np.setdiff1d(np.arange(len(NAMES)), NOVEL_SHOWN)
            drawn = np.concatenate([drawn, rng.choice(rest, count - len(drawn), replace=False)])
            embedding = replace(
                whole, names=tuple(NAMES[each] for each in drawn), embeddings=whole.embeddings[torch.tensor(drawn)]
            )
            others = ~torch.isin(shown, torch.tensor(drawn))
            if others.all():
                continue
            areas.append([auroc(score(embedding, tokens), others) for score in SCORES.values()])
            told = [embedding.unknown(tokens) > limit for limit in LIMITS]
            shares.append(
                [(float(each[others].double().mean()), float(each[~others].double().mean())) for each in told]
            )
        cells = [f"{value:.3f}" for value in np.mean(areas, 0)]
        cells += [f"{positive:.0%}, {negative:.0%}" for positive, negative in np.mean(shares, 0)]
        print(f"| {count} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
