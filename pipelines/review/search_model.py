"""What embeds texts and images for the search."""

import threading

import numpy as np
from jaxtyping import Float32

from openvis_model.pictures import picture_content
from openvis_model.reference_names import reference_names
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.video_segmenter import VideoSegmenter
from openvis_model.vocabulary import Vocabulary
from pipelines.models import load_light_model, load_model
from pipelines.review.images import Recent

_TEXTS = 256  # that are remembered


class SearchModel:
    """Embeds texts, and the most prominent objects of images, as a model embeds tracks.

    Args:
        checkpoint: folder, local or in the cloud; None is the built-in model.

    Attributes:
        fingerprint: hash of the model.

    Raises:
        ValueError: the checkpoint is missing or damaged.
    """

    def __init__(self, checkpoint: str | None) -> None:
        self._checkpoint = checkpoint
        self._light = load_light_model(checkpoint)
        self.fingerprint = self._light.fingerprint
        self._segmenter: VideoSegmenter | None = None
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
        """Returns the embedding of the object with the highest objectness; the whole model is loaded at the first call.

        Raises:
            ValueError: the content of the file is no image, or shows no object.
        """
        try:
            pixels = picture_content(image).pixels
        except ValueError as error:
            raise ValueError(f"image: {error}") from error
        with self._lock:
            if self._segmenter is None:
                names = reference_names(self._light.text_encoder.tokenizer)[:1]  # no embedding depends on them
                self._segmenter = VideoSegmenter(load_model(self._checkpoint), names)
            list(self._segmenter.track(pixels[None]))
            tracks = self._segmenter.finish()
        if not tracks:
            raise ValueError("image: shows no object; crop it more closely, or choose another")
        vector: Float32[np.ndarray, " D"] = max(tracks, key=lambda track: track.objectness).embedding.numpy()
        return vector
