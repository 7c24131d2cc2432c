"""The sample of both training stages: T frames of a video and the objects in them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingClip:
    """T frames with O objects; O may be 0.

    Attributes:
        frames: RGB.
        masks: visible pixels of each object, empty in frames without it; every object is in at least one frame.
        categories: category of each object, as a row of the training vocabulary.
        seed: seed of everything random about the clip, including sampled points.
        rivals: which names of the training vocabulary compete with each object's own; None if all others do.
        exhaustive: whether every object in the frames is annotated; if not, an unmatched query may be on one.

    Raises:
        ValueError: for shapes or types that do not match, an object without pixels, a category that is no row of the
            vocabulary, or a negative seed.
    """

    frames: UInt8[np.ndarray, "T H W 3"]
    masks: Bool[np.ndarray, "O T H W"]
    categories: Int64[np.ndarray, "O"]
    seed: int
    rivals: Bool[np.ndarray, "O K"] | None = None
    exhaustive: bool = True

    def __post_init__(self) -> None:
        frames, masks, categories = self.frames, self.masks, self.categories
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
            raise ValueError(f"frames: expected uint8 [T, H, W, 3] with pixels, got {frames.dtype} {frames.shape}")
        if masks.dtype != np.bool_ or masks.ndim != 4 or masks.shape[1:] != frames.shape[:3]:
            raise ValueError(
                f"masks: expected bool [O, T, H, W] of frames {frames.shape[:3]}, got {masks.dtype} {masks.shape}"
            )
        if categories.dtype != np.int64 or categories.shape != masks.shape[:1]:
            raise ValueError(
                f"categories: expected int64, one for each of {len(masks)} masks, "
                f"got {categories.dtype} {categories.shape}"
            )
        if categories.min(initial=0) < 0:
            raise ValueError(f"categories: expected rows of a vocabulary, from 0, got {categories.min()}")
        empty = [index for index, mask in enumerate(masks) if not mask.any()]
        if empty:
            raise ValueError(f"masks: object {empty[0]} has no pixel in any frame; leave it out")
        rivals = self.rivals
        if rivals is not None and (
            rivals.dtype != np.bool_
            or rivals.ndim != 2
            or len(rivals) != len(masks)
            or categories.max(initial=-1) >= rivals.shape[1]
        ):
            raise ValueError(
                f"rivals: expected bool, a row for each of {len(masks)} masks and more columns than the largest "
                f"category {categories.max(initial=-1)}, got {rivals.dtype} {rivals.shape}"
            )
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed: expected 0 to 2^63 - 1, got {self.seed}")
