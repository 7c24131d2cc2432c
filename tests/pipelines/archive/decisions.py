"""Decisions about tracks, written by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.archive.reviews import Decision

START = datetime(2026, 1, 1, tzinfo=UTC)


def decide(track_id: int, action: Any, category: str | None = None, *, at: float = 0, **values: Any) -> Decision:
    """A decision about a track of video `a`, some seconds after the first."""
    about = {"video_id": "a", "reviewer": "ann", "time": START + timedelta(seconds=at)}
    prints = dict.fromkeys(("model_fingerprint", "vocabulary_fingerprint", "config_fingerprint"))
    return Decision(track_id=track_id, action=action, category=category, **(about | prints | values))
