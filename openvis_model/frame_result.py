"""What `VideoSegmenter` reports of one frame."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int64

from openvis_model.rle import RleMasks
from openvis_model.track import Track

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameResult:
    """The n tracks that are in sight in one frame, in the order of their ids. Picklable, a few hundred bytes a track.

    Attributes:
        index: index of the frame in the video.
        track_ids: id of each track, unique within the video.
        categories: the best category of each track, from all frames up to this one.
        category_ids: position of this category in the vocabulary.
        scores: mean objectness of the track so far · probability of this category, in [0, 1].
        objectness: probability that the instance of this frame is an object.
        masks: one mask per track at the size of the video's frames; `masks.to_coco()` gives COCO's run-length encoding,
            `masks.to_dense()` bool [n, H, W].
        ended: tracks that ended with this frame, out of sight for longer than `max_gap` or because of a cut.
        begins_shot: whether the video was cut before this frame.
    """

    index: int
    track_ids: Int64[np.ndarray, " n"]
    categories: tuple[str, ...]
    category_ids: Int64[np.ndarray, " n"]
    scores: Float32[np.ndarray, " n"]
    objectness: Float32[np.ndarray, " n"]
    masks: RleMasks
    ended: tuple[Track, ...] = ()
    begins_shot: bool = False

    def __len__(self) -> int:
        return len(self.track_ids)

    @property
    def boxes(self) -> Int64[np.ndarray, "n 4"]:
        """Boxes of the masks: x, y, width, height in pixels, as in COCO."""
        return self.masks.boxes

    def to_supervision(self) -> "supervision.Detections":
        """Returns the frame as roboflow's `supervision` takes it, for its annotators, trackers and sinks.

        `xyxy` and `mask` are the boxes and dense masks, `confidence` the scores, `class_id` the category ids,
        `tracker_id` the track ids, and `data["class_name"]` the categories.

        Raises:
            ImportError: `supervision` is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError(
                "supervision is not installed; install openvis with its extra: pip install --editable '.[supervision]'"
            ) from error
        corners = self.boxes.astype(np.float32)
        corners[:, 2:] += corners[:, :2]
        return supervision.Detections(
            xyxy=corners,
            mask=self.masks.to_dense(),
            confidence=self.scores,
            class_id=self.category_ids,
            tracker_id=self.track_ids,
            data={"class_name": np.array(self.categories, dtype=np.str_)},
        )
