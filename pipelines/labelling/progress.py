"""How far a labelling run has come."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the videos of a tracker actor, or of all, have come."""

    ok: int = 0
    failed: int = 0
    frames: int = 0
    tracks: int = 0

    def __add__(self, other: "Progress") -> "Progress":
        return Progress(**{name: value + getattr(other, name) for name, value in vars(self).items()})
