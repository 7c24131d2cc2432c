"""How benchmarks differ in what counts for average precision. Imports nothing heavy."""

from dataclasses import dataclass, replace
from typing import Literal

EMPTY_MEAN = -1.0
"""The mean of nothing, as the official tools print it."""


@dataclass(frozen=True, kw_only=True)
class ApRules:
    """What a benchmark counts.

    Attributes:
        categories: whether a prediction must have its object's category; otherwise all categories are one.
        forced_category: category id that replaces that of every prediction; None keeps them.
        crowd: a "crowd" object is "ignored", so that predictions matched to it do not count, or "counted" like any
            other. Either way, several predictions can match it.
        areas: areas in the file are taken "as stated" or cut to "whole pixels".
        partitions: whether base and novel categories get numbers of their own.
        max_detections: three limits on the predictions that count, in order of score, per video and category (per video
            if `categories` is false). Predictions are matched once, with the last limit.
        strict: whether objects with the id 0 can be found. The official tools mark matches with the object's id and
            read 0 as "none": they accept such an object, but the prediction that matches it counts as wrong.
    """

    categories: bool = True
    forced_category: int | None = None
    crowd: Literal["ignored", "counted"] = "ignored"
    areas: Literal["as stated", "whole pixels"] = "as stated"
    partitions: bool = False
    max_detections: tuple[int, int, int] = (1, 10, 100)
    strict: bool = False

    def unlimited(self, predictions: int) -> "ApRules":
        """Returns rules whose last limit leaves out none of that many predictions."""
        return replace(self, max_detections=(1, 10, max(10, predictions)))


YTVIS = ApRules()  # and OVIS: youtubevos/cocoapi, YTVOSeval
LVVIS = ApRules(crowd="counted", areas="whole pixels", partitions=True)  # haochenheheda/LVVIS, LVVISeval
UVO = ApRules(categories=False, forced_category=1)  # EvaluationAPI of UVO v1.0, which runs YTVOSeval
OPEN_VOCABULARY = ApRules(partitions=True, strict=True)  # our own for Shapes: those of YouTube-VIS without their faults
