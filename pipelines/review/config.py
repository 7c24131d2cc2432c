"""Options of a review. Imports nothing heavy."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ReviewConfig:
    """A review.

    Attributes:
        labels: output of a labelling run, local or in the cloud; decisions are added to it.
        checkpoint: checkpoint folder of the model that labelled the videos, local or in the cloud, for the search by
            text and to follow objects; null is the built-in model.
        port: port of the page; 0 takes any that is free.
        host: address to listen on. With another than 127.0.0.1, anyone in the network who has the token can read the
            labelled videos, unencrypted, and decide.
        reviewer: name that decisions are stored under, unless the page is given another; null is that of the user.
        report: instead of a page, prints how precise each category is by the decisions so far and which tracks to look
            at next, and writes it to this .json file, local or in the cloud.
        snapshot: instead of a page, writes it to this folder, local or in the cloud, with tracks, decisions and small
            films of the labelled frames as they are now; any static host can show it. Needs the videos, and no
            checkpoint.
    """

    labels: str
    checkpoint: str | None = None
    port: int = 0
    host: str = "127.0.0.1"
    reviewer: str | None = None
    report: str | None = None
    snapshot: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"port: expected 0 to 65535, got {self.port}")
        if self.reviewer is not None and not self.reviewer.strip():
            raise ValueError("reviewer: is empty; give a name")
        if self.report is not None and self.snapshot is not None:
            raise ValueError("snapshot: cannot be given together with report; run both, one after the other")
