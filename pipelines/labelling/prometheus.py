"""Metrics of labelling, which Ray exports to Prometheus on every node."""

from ray.util.metrics import Counter, Gauge


class LabelMetrics:
    """What one tracker actor did; Prometheus adds up all, also those that were started again.

    Args:
        actor: tells the gauges of actors apart.
    """

    def __init__(self, actor: str) -> None:
        self.actor = actor
        self.frames = Counter("openvis_label_frames", "Frames that were tracked.")
        self.tracks = Counter("openvis_label_tracks", "Tracks that ended.")
        self.seconds = Counter("openvis_label_seconds", "Seconds of work, of the model or the tracker.", ("stage",))
        self.videos = Counter("openvis_label_videos", "Videos that were finished, ok or failed.", ("status",))
        self.open_videos = Gauge("openvis_label_open_videos", "Videos that are begun and not finished.", ("actor",))

    def add(self, *, frames: int, tracks: int, model_s: float, tracker_s: float) -> None:
        """Counts a batch."""
        for counter, value, tags in (
            (self.frames, frames, {}),
            (self.tracks, tracks, {}),
            (self.seconds, model_s, {"stage": "model"}),
            (self.seconds, tracker_s, {"stage": "tracker"}),
        ):
            if value > 0:
                counter.inc(value, tags)

    def finish(self, status: str) -> None:
        """Counts a video, which is `ok` or `failed`."""
        self.videos.inc(1, {"status": status})

    def set_open(self, videos: int) -> None:
        """Says how many videos are begun and not finished."""
        self.open_videos.set(videos, {"actor": self.actor})
