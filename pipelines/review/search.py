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
        self._first = catalogue.id
        self._model: SearchModel | None = None
        self._away = False  # the model could not be loaded, but may be later
        self.embeddings = Embeddings(catalogue)
        self.model_off: str | None = "the model is being loaded"

    def warm_up(self) -> None:
        """Loads the model and the embeddings."""
        if not self._model:
            self._load_model()
        self.embeddings.load()

    def refresh(self) -> None:
        """Loads again what could not be loaded because the storage was away."""
        if self._away:
            self._load_model()
        if self.embeddings.error:
            self.list_again(self.embeddings.catalogue).load()

    def list_again(self, catalogue: Catalogue) -> Embeddings:
        """Takes over the tracks that there are now; returns their embeddings, which are not loaded yet."""
        self.embeddings = Embeddings(catalogue, self.embeddings)
        return self.embeddings

    def state(self) -> dict[str, str | None]:
        """Returns why tracks cannot be searched by text or image, and by another track; None if they can."""
        similar_off = _reason(self.embeddings)
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
        embeddings = self._loaded()
        if not 0 <= row < embeddings.catalogue.size:
            raise AbsentError(f"like: there is no track {row}; load the page again")
        return _nearest(embeddings, wanted, embeddings.of(row), embeddings.model_of(row))

    def like_text(self, wanted: Filter, text: str) -> Found:
        """Finds tracks that are similar to a text, whose synonyms are separated by commas.

        Raises:
            ValueError: the text cannot be read, or the search is off; says why.
        """
        model = self._loaded_model()
        vector = model.embed_text(text)
        return _nearest(self._loaded(), wanted, vector, model.fingerprint)

    def like_image(self, wanted: Filter, image: bytes) -> Found:
        """Finds tracks that are similar to the most prominent object of an image, the content of a file.

        Raises:
            ValueError: the image cannot be read or shows no object, or the search is off; says why.
        """
        model = self._loaded_model()
        vector = model.embed_image(image)
        return _nearest(self._loaded(), wanted, vector, model.fingerprint)

    def _loaded(self) -> Embeddings:
        """Returns the embeddings, which others may replace meanwhile.

        Raises:
            ValueError: they cannot be read, or not yet.
        """
        embeddings = self.embeddings
        if embeddings.catalogue.id != self._first:  # tracks were added: they are being read
            embeddings.ready.wait(SOON_S)
        if reason := _reason(embeddings):
            raise ValueError(f"search: {reason}")
        return embeddings

    def _loaded_model(self) -> "SearchModel":
        self._loaded()
        if self._model is None or self.model_off:
            raise ValueError(f"search: {self.model_off}")
        return self._model

    def _load_model(self) -> None:
        from pipelines.review.search_model import SearchModel  # imports torch, which takes seconds

        try:
            model = SearchModel(self._checkpoint)
            self._results.of_other_models(model.fingerprint)
        except (ValueError, OSError) as error:
            self.model_off, self._away = str(error), isinstance(error, OSError)
        else:
            self._model, self.model_off, self._away = model, None, False


def _reason(embeddings: Embeddings) -> str | None:
    """Returns why embeddings cannot be compared; None if they can."""
    waiting = f"embeddings are being read: {embeddings.loaded} of {embeddings.catalogue.size}"
    return embeddings.error or (None if embeddings.ready.is_set() else waiting)


def _nearest(embeddings: Embeddings, wanted: Filter, vector: Float32[np.ndarray, " D"], model: str | None) -> Found:
    rows, cosines = embeddings.nearest(vector, embeddings.catalogue.find(wanted, ordered=False), _SIMILAR, model)
    return Found(catalogue=embeddings.catalogue, rows=rows, cosines=cosines)
