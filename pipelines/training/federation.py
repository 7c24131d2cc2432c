"""What the softmax of Eq. 4 may hold against an object of a federated image, such as those of LVIS."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from pycocotools import mask as coco

from pipelines.datasets.annotations import Federation

_SAME = 0.5  # IoU of two annotations above which they are one object, annotated under two names


def rival_names(
    federation: Federation, categories: Int64[np.ndarray, "N"], frames: Sequence[Sequence[dict[str, Any]]], names: int
) -> Bool[np.ndarray, "N K"]:
    """Returns which names an object is known not to have: only these compete with its own.

    They are those that annotators sought in vain in the image, and those of which they annotated every instance, this
    object not among them. A name that they did not seek, or annotated in part, may be right for the object too.

    Args:
        federation: what is known of the image, in rows of the vocabulary.
        categories: of its annotated objects, as rows of the vocabulary.
        frames: run lengths of all of these objects in some frames, as pycocotools has them; empty where one is absent.
        names: K, the length of the vocabulary.
    """
    annotated = np.zeros((len(categories), names), bool)
    annotated[np.arange(len(categories)), categories] = True
    if not len(categories):
        return annotated
    known = np.zeros(names, bool)
    known[categories] = True
    known[list(federation.partial)] = False
    known[list(federation.absent)] = True
    same_object = np.eye(len(categories), dtype=bool)
    for masks in frames:
        same_object |= np.asarray(coco.iou(list(masks), list(masks), [0] * len(masks))) > _SAME
    # As floats, of which BLAS makes the product: an image may have hundreds of objects.
    names_of_object = same_object.astype(np.float32) @ annotated.astype(np.float32) > 0
    rivals: np.ndarray = known & ~names_of_object
    return rivals
