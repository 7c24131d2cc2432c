"""The tracking of one video, without a network: instances of each frame in, tracks out."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int, UInt8

from openvis_model.instances import Instances
from openvis_model.shots import ShotState, begins_shot
from openvis_model.track import Track
from openvis_model.video_tracker import TrackedFrame, TrackerState, VideoTracker


class VideoTracking:
    """A tracker and the state of the video that it is tracking.

    Args:
        tracker: may be shared by many videos.
        state: where to resume; a new video if None.
        shots: where to resume the detection of cuts.

    Attributes:
        state: after the last frame taken in; picklable.
        shots: the detection of cuts after that frame; picklable.
    """

    def __init__(
        self, tracker: VideoTracker, state: TrackerState | None = None, shots: ShotState | None = None
    ) -> None:
        self.tracker = tracker
        self.state = state or TrackerState()
        self.shots = shots or ShotState()

    def add(
        self, frame: int, instances: Instances, thumbnail: UInt8[np.ndarray, "32 32 3"] | None = None
    ) -> TrackedFrame:
        """Takes in the instances of the next frame; tracks end where the video is cut.

        Args:
            frame: index of the frame in the video.
            instances: its instances.
            thumbnail: from `shots.thumbnails`, to find cuts; None looks for none.

        Raises:
            ValueError: for a frame that does not come after the last one, or instances of another model.
        """
        cut = False
        if thumbnail is not None:
            cut, self.shots = begins_shot(self.shots, thumbnail)
        ended = self._end_tracks() if cut else []
        self.state, tracked = self.tracker.step(self.state, frame, instances)
        return replace(tracked, ended=ended + tracked.ended, begins_shot=cut)

    def tracks_so_far(self, track_ids: Int[np.ndarray, " n"]) -> list[Track]:
        """Returns tracks that have not ended, as they are now, in the order of their ids."""
        return self.tracker.tracks_so_far(self.state, track_ids)

    def finish(self) -> list[Track]:
        """Ends the video; returns its tracks that had not ended, in the order of their ids."""
        self.shots = ShotState()
        return self._end_tracks()

    def _end_tracks(self) -> list[Track]:
        self.state, tracks = self.tracker.finish(self.state)
        return tracks
