"""Several data sets as one endless sequence of clips, in which each has the share that its weight gives it.

Decoders run it, so it imports neither torch nor the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from jaxtyping import Int64

from openvis_model.training.training_clip import TrainingClip
from pipelines.training.clips import sample
from pipelines.training.data import TrainingData


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixture:
    """Data sets, and a vocabulary of the names of all.

    An object's name competes with those of its own data set alone: another may have other names for the same thing.

    Attributes:
        data_sets: in the order of the settings.
        names: each name once, in the order of the data sets.
        rows: for each data set, the places of its names among all.
    """

    data_sets: tuple[TrainingData, ...]
    names: tuple[str, ...]
    rows: tuple[Int64[np.ndarray, " _"], ...]

    @classmethod
    def of(cls, data_sets: Sequence[TrainingData]) -> "Mixture":
        """Mixes data sets."""
        places: dict[str, int] = {}
        rows = [[places.setdefault(name, len(places)) for name in data.names] for data in data_sets]
        return cls(
            data_sets=tuple(data_sets), names=tuple(places), rows=tuple(np.array(each, np.int64) for each in rows)
        )

    def sample(self, number: int) -> TrainingClip:
        """Makes sample `number`, with rows of the common vocabulary.

        Raises:
            ValueError: a file cannot be read; names file and video.
        """
        position, own_number = place(number, [data.config.weight for data in self.data_sets])
        clip, rows = sample(self.data_sets[position], own_number), self.rows[position]
        rivals = clip.rivals
        if rivals is not None or len(rows) < len(self.names):
            rivals = np.zeros((len(clip.masks), len(self.names)), bool)
            rivals[:, rows] = True if clip.rivals is None else clip.rivals
        return replace(clip, categories=rows[clip.categories], rivals=rivals)


def place(number: int, weights: Sequence[float]) -> tuple[int, int]:
    """Returns which of several data sets sample `number` is from, and which sample of that data set it is.

    Every data set contributes its samples in their order and none is left out, so that its epochs stay whole. At any
    time, its number of samples differs from its share of all by less than the number of data sets.
    """
    shares = [Fraction(weight) for weight in weights]  # exact, as numbers grow without end
    left = sum(shares)
    for position, share in enumerate(shares):
        before, after = (int(count * share / left) for count in (number, number + 1))
        if after > before:
            return position, before
        number -= before
        left -= share
    raise AssertionError(weights)  # the last data set takes all that is left
