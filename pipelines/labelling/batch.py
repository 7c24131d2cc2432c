"""What travels between the stages of the labelling pipeline. Without torch, like all that reads and hands on."""

from dataclasses import dataclass

from pipelines.video.plan import VideoInfo


@dataclass(frozen=True, kw_only=True)
class LabelledBatch:
    """What the model made of consecutive frames of one video.

    Attributes:
        video_id: the video.
        uri: where it is.
        version: the ETag that its content on S3 must have.
        segment: which segment of the video the frames are from.
        batch: which batch of the segment.
        last_batch: whether it ends its segment.
        segments: number of segments of the video.
        expected_frames: frames that the whole video should give.
        info: what the file's index says.
        frame: index in the file of each frame.
        time_s: time of each frame, seconds.
        instances: those of each frame, a pickled tuple; only the model and the tracker open it, and need torch.
        model_s: time that the model took, seconds.
        error: why the video failed; it then has no further batches that count.
    """

    video_id: str
    uri: str
    version: str = ""
    segment: int = 0
    batch: int = 0
    last_batch: bool = True
    segments: int = 1
    expected_frames: int = 0
    info: VideoInfo | None = None
    frame: tuple[int, ...] = ()
    time_s: tuple[float, ...] = ()
    instances: bytes = b""
    model_s: float = 0.0
    error: str | None = None
