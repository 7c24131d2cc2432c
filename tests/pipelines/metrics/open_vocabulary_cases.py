"""Two videos with three objects, of which everything can be worked out by hand."""

from collections.abc import Sequence

from pipelines.datasets.annotations import AnnotatedTrack, AnnotatedVideo, Category, GroundTruth, PredictedTrack
from tests.pipelines.metrics.tracks import guess, strip, track

NAMES = ("red plain star", "red striped star", "blue plain disc", "blue striped disc", "green_striped disc")
STAR, STRIPED, DISC, STRIPED_DISC, GREEN = 1, 2, 3, 4, 5
NOVEL = (DISC, STRIPED_DISC)


def world(*tracks: AnnotatedTrack, videos: Sequence[int] = (1, 2), names: Sequence[str] = NAMES) -> GroundTruth:
    return GroundTruth(
        path="truth.json",
        sha256="",
        videos=tuple(AnnotatedVideo(id=number, height=1, width=400, length=1) for number in videos),
        categories=tuple(
            Category(id=number, name=name, partition=3 if number in NOVEL else 1)
            for number, name in enumerate(names, start=1)
        ),
        tracks=tracks,
    )


TRUTH = world(
    track([strip(0, 20)], number=1, video=1, category=STAR),
    track([strip(100, 120)], number=2, video=1, category=DISC),
    track([strip(0, 20)], number=3, video=2, category=DISC),
)


def predictions() -> list[PredictedTrack]:
    """Four tracks, three of them an object's; best first, what they are called:

    the star a star; the star a striped star; the disc of video 2 a green one; background a disc; the disc of video 1 a
    striped disc; the same a disc. Nothing in the data set is called striped or green.
    """
    return [
        guess([strip(0, 20)], 0.9, video=1, category=STAR),
        guess([strip(100, 120)], 0.7, video=1, category=STRIPED_DISC),
        guess([strip(0, 20)], 0.85, video=1, category=STRIPED),
        guess([strip(300, 320)], 0.75, video=1, category=DISC),
        guess([strip(100, 120)], 0.4, video=1, category=DISC),
        guess([strip(0, 20)], 0.8, video=2, category=GREEN),
    ]
