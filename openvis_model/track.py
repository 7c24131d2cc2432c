"""What is known of one track: when it was seen, its embedding, and its best names."""

from dataclasses import dataclass, field
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class CategoryScore(NamedTuple):
    """How well a category describes a track.

    Attributes:
        category: the category's shown name.
        score: mean objectness · class probability of the track's embedding (Eq. 4), in [0, 1].
        category_id: the category's position in the vocabulary.
    """

    category: str
    score: float
    category_id: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """One object over time.

    Scores in any other vocabulary follow from `objectness` and `embedding`.

    Attributes:
        track_id: unique within the video, in order of first sight.
        top: the best categories, best first.
        first_frame: index of the first frame that shows the object.
        last_frame: index of the last frame that shows it.
        frames: number of frames that show it.
        objectness: mean over these frames, a probability.
        embedding: mean of its instance tokens weighted by objectness, unit norm.
        unknown: how likely it is that an unrelated name fits as well as the best category, in [0, 1]; near 1, no
            category fits (`VocabularyEmbedding.unknown`).
        colour: mean RGB of what its masks show, weighted by their areas, 0 to 255.
    """

    track_id: int
    top: tuple[CategoryScore, ...]
    first_frame: int
    last_frame: int
    frames: int
    objectness: float
    embedding: Float[Tensor, " D"] = field(repr=False)
    unknown: float
    colour: Float[Tensor, "3"] = field(repr=False)

    @property
    def category(self) -> str:
        """Name of the best category."""
        return self.top[0].category

    @property
    def score(self) -> float:
        """Score of the best category."""
        return self.top[0].score
