"""The tracking of one video, without a network: instances of each frame in, tracks out."""

import numpy as np
from jaxtyping import Int

from openvis_model.instances import Instances
from openvis_model.track import Track
from openvis_model.video_tracker import TrackedFrame, TrackerState, VideoTracker


class VideoTracking:
    """A tracker and the state of the video that it is tracking.

    Args:
        tracker: may be shared by many videos.
        state: where to resume; a new video if None.

    Attributes:
        state: after the last frame taken in; picklable.
    """

    def __init__(self, tracker: VideoTracker, state: TrackerState | None = None) -> None:
        self.tracker = tracker
        self.state = state or TrackerState()

    def add(self, frame: int, instances: Instances) -> TrackedFrame:
        """Takes in the instances of the next frame; `frame` is its index in the video.

        Raises:
            ValueError: for a frame that does not come after the last one, or instances of another model.
        """
        self.state, tracked = self.tracker.step(self.state, frame, instances)
        return tracked

    def tracks_so_far(self, track_ids: Int[np.ndarray, " n"]) -> list[Track]:
        """Returns tracks that have not ended, as they are now, in the order of their ids."""
        return self.tracker.tracks_so_far(self.state, track_ids)

    def finish(self) -> list[Track]:
        """Ends all tracks, at the end of the video or at a shot cut, and returns them in the order of their ids."""
        self.state, tracks = self.tracker.finish(self.state)
        return tracks
