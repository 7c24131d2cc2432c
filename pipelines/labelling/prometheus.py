"""Metrics of labelling, which Ray exports to Prometheus on every node."""

from ray.util.metrics import Counter, Gauge


class TrackerMetrics:
    """The work of one tracker actor; Prometheus sums over all actors, including those that have ended.

    Args:
        actor: an id that keeps the gauges of actors apart.
    """

    def __init__(self, actor: str) -> None:
        self.actor = actor
        self.frames = Counter("openvis_label_frames", "Frames that were tracked.")
        self.tracks = Counter("openvis_label_tracks", "Tracks that ended.")
        self.seconds = Counter("openvis_label_seconds", "Seconds of work of the model or the tracker.", ("operator",))
        self.videos = Counter("openvis_label_videos", "Videos that were finished, ok or failed.", ("status",))
        self.open_videos = Gauge("openvis_label_open_videos", "Videos that are begun and not finished.", ("actor",))

    def add(self, *, frames: int, tracks: int, model_s: float, tracker_s: float) -> None:
        """Counts a batch."""
        for counter, value, tags in (
            (self.frames, frames, {}),
            (self.tracks, tracks, {}),
            (self.seconds, model_s, {"operator": "model"}),
            (self.seconds, tracker_s, {"operator": "tracker"}),
        ):
            if value > 0:
                counter.inc(value, tags)

    def finish(self, status: str) -> None:
        """Counts a finished video.

        Args:
            status: `ok` or `failed`.
        """
        self.videos.inc(1, {"status": status})

    def set_open(self, videos: int) -> None:
        """Reports the number of videos that are begun and not finished."""
        self.open_videos.set(videos, {"actor": self.actor})
