"""The search of a review: tracks that are similar to a text, to an image or to another track."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int32

from pipelines.archive.tables import Results
from pipelines.review.catalogue import Catalogue, Filter
from pipelines.review.similarity import Embeddings

if TYPE_CHECKING:
    from pipelines.review.search_model import SearchModel

SOON_S = 5.0
"""How long a request waits for embeddings that are being read again; of a million tracks it takes longer."""

_SIMILAR = 2000  # tracks that a search returns


class AbsentError(ValueError):
    """What was asked for is not, or no longer, in the archive."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """Tracks that a filter or a search found, in order, and their similarity if it was a search."""

    catalogue: Catalogue
    rows: Int32[np.ndarray, " n"]
    cosines: Float32[np.ndarray, " n"] | None = None


class Search:
    """Searches the tracks of an archive. Methods may be called by several threads.

    Args:
        results: the archive.
        checkpoint: folder of the model that labelled it; None is the built-in model.
        catalogue: the tracks.

    Attributes:
        embeddings: those of the tracks.
        model_off: why tracks cannot be searched by text or image; None if they can.
    """

    def __init__(self, results: Results, checkpoint: str | None, catalogue: Catalogue) -> None:
        self._results, self._checkpoint = results, checkpoint
        self._first = catalogue
        self._model: SearchModel | None = None
        self.embeddings = Embeddings(catalogue)
        self.model_off: str | None = "the model is being loaded"

    def warm_up(self) -> None:
        """Loads the model and the embeddings."""
        if not self._model:
            self._load_model()
        self.embeddings.load()

    def list_again(self, catalogue: Catalogue) -> Embeddings:
        """Takes over the tracks that there are now; returns their embeddings, which are not loaded yet."""
        self.embeddings = Embeddings(catalogue)
        return self.embeddings

    def state(self) -> dict[str, str | None]:
        """Returns why tracks cannot be searched by text or image, and by another track; None if they can."""
        loaded, size = self.embeddings.loaded, self.embeddings.catalogue.size
        waiting = None if self.embeddings.ready.is_set() else f"embeddings are being read: {loaded} of {size}"
        similar_off = self.embeddings.error or waiting
        return {"search_off": self.model_off or similar_off, "similar_off": similar_off}

    def like_track(self, wanted: Filter, row: int) -> Found:
        """Finds tracks that are similar to one, given by its row.

        Args:
            wanted: the filter.
            row: row of the catalogue.

        Raises:
            AbsentError: there is no such row.
            ValueError: embeddings cannot be read, or not yet.
        """
        self._check_embeddings()
        if not 0 <= row < self.embeddings.catalogue.size:
            raise AbsentError(f"like: there is no track {row}; load the page again")
        return self._similar(wanted, self.embeddings.of(row), self.embeddings.model_of(row))

    def like_text(self, wanted: Filter, text: str) -> Found:
        """Finds tracks that are similar to a text, whose synonyms are separated by commas.

        Raises:
            ValueError: the text cannot be read, or the search is off; says why.
        """
        model = self._checked_model()
        return self._similar(wanted, model.embed_text(text), model.fingerprint)

    def like_image(self, wanted: Filter, image: bytes, name: str) -> Found:
        """Finds tracks that are similar to the most prominent object of an image.

        Args:
            wanted: the filter.
            image: content of a file.
            name: any name that CLIP's text tower can read.

        Raises:
            ValueError: the image cannot be read or shows no object, or the search is off; says why.
        """
        model = self._checked_model()
        return self._similar(wanted, model.embed_image(image, name), model.fingerprint)

    def _similar(self, wanted: Filter, vector: Float32[np.ndarray, " D"], model: str | None) -> Found:
        catalogue = self.embeddings.catalogue
        rows, cosines = self.embeddings.nearest(vector, catalogue.find(wanted, ordered=False), _SIMILAR, model)
        return Found(catalogue=catalogue, rows=rows, cosines=cosines)

    def _check_embeddings(self) -> None:
        if self.embeddings.catalogue is not self._first:  # tracks were added: they are being read
            self.embeddings.ready.wait(SOON_S)
        if reason := self.state()["similar_off"]:
            raise ValueError(f"search: {reason}")

    def _checked_model(self) -> "SearchModel":
        self._check_embeddings()
        if self._model is None or self.model_off:
            raise ValueError(f"search: {self.model_off}")
        return self._model

    def _load_model(self) -> None:
        from pipelines.review.search_model import SearchModel  # imports torch, which takes seconds

        try:
            model = SearchModel(self._checkpoint)
            self._results.of_other_models(model.fingerprint)
        except (ValueError, OSError) as error:
            self.model_off = str(error)
        else:
            self._model, self.model_off = model, None
