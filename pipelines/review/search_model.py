"""What embeds texts and images for the search."""

import threading
from functools import cached_property

import numpy as np
from jaxtyping import Float32

from openvis_model.exemplars import PictureExemplar
from openvis_model.picture_encoder import PictureEncoder
from openvis_model.pictures import picture_content
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import Vocabulary
from pipelines.models import load_light_model, load_picture_encoder
from pipelines.review.images import Recent

_TEXTS = 256  # that are remembered


class SearchModel:
    """Embeds texts and images in the space in which a model embeds tracks.

    Args:
        checkpoint: folder, local or s3://; None is the built-in model.

    Attributes:
        fingerprint: hash of the model.

    Raises:
        ValueError: the checkpoint is missing or damaged.
    """

    def __init__(self, checkpoint: str | None) -> None:
        self._checkpoint = checkpoint
        self._light = load_light_model(checkpoint)
        self.fingerprint = self._light.fingerprint
        self._lock = threading.Lock()
        self._texts: Recent[str, Float32[np.ndarray, " D"]] = Recent(_TEXTS)

    def embed_text(self, text: str) -> Float32[np.ndarray, " D"]:
        """Returns the embedding of a text, unit norm; synonyms are separated by commas.

        Raises:
            ValueError: it has an empty word, or CLIP's text tower cannot read it.
        """
        return self._texts.get(text, lambda: self._embed(text))

    def _embed(self, text: str) -> Float32[np.ndarray, " D"]:
        try:
            vocabulary = Vocabulary.handwritten([text.split(",")])
        except ValueError:
            raise ValueError(f"text: {text!r} has an empty word; give one, or several separated by commas") from None
        vector: Float32[np.ndarray, " D"] = embed_vocabulary(vocabulary, self._light.text_encoder).embeddings[0].numpy()
        return vector

    def embed_image(self, image: bytes) -> Float32[np.ndarray, " D"]:
        """Returns the embedding of all of an image, as `jobs.search --image` does, unit norm.

        Args:
            image: content of a file.

        Raises:
            ValueError: it is no image that can be read.
        """
        try:
            exemplar = PictureExemplar("image", content=picture_content(image))
        except ValueError as error:
            raise ValueError(f"image: {error}") from error
        with self._lock:
            vector: Float32[np.ndarray, " D"] = self._pictures.embed(exemplar).numpy()
        return vector

    @cached_property
    def _pictures(self) -> PictureEncoder:
        return load_picture_encoder(self._checkpoint)  # takes longer than all that texts need
