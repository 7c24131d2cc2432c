"""The progress of a labelling run."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a tracker actor, or all of them, have done so far.

    Attributes:
        ok: videos that are labelled.
        failed: videos that have failed.
        frames: frames that went through the tracker.
        tracks: tracks that have ended.
    """

    ok: int = 0
    failed: int = 0
    frames: int = 0
    tracks: int = 0

    def __add__(self, other: "Progress") -> "Progress":
        return Progress(**{name: value + getattr(other, name) for name, value in vars(self).items()})
