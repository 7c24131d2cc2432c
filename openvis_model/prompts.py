"""What shows the object that is followed through a video: a box or points in one of its frames. Imports no torch.

A prompt is a line `TIME: WHERE = NAME`:

    0.5s: box 10 20 200 180 = my cup         left, top, width and height, in pixels of the upright frame
    frame 12: point 120 80 = my cup          a pixel of the object; several say more clearly what is meant
    2s: point 120 80, point 130 95, not 60 40    a pixel that does not belong to it; without a name

`0.5s` is the frame that a player shows at that time. Commas and spaces separate numbers alike, as in the exemplars of
a vocabulary.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from openvis_model.exemplars import Box

Point = tuple[int, int]
"""Column and row, pixels, counted from 0."""

EXAMPLE = "0.5s: box 10 20 200 180 = my cup"

_PROMPT = re.compile(r"(?P<time>[^:=]+):(?P<where>[^=]*)(?:=(?P<name>.*))?")
_SECONDS = re.compile(r"(\d{1,7}(?:\.\d{1,9})?) *s")
_FRAME = re.compile(r"frame +(\d{1,9})")
_MARK = re.compile(r"[ ,]*(box|point|not)((?:[ ,]+\d{1,6})+)(?=[ ,]|$)")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A box or points that show an object in one frame of a video.

    Attributes:
        name: what the object is called.
        seconds: time of the frame, from the video's first one; None if its index is given.
        frame: index of the frame in the video; None if its time is given.
        box: around the object; None if only points are given.
        points: pixels that belong to the object.
        excluded: pixels that do not belong to it.
        place: where the prompt is given, for errors.

    Raises:
        ValueError: not just one of time and frame is given, there is neither a box nor a point, or the name is empty.
    """

    name: str
    seconds: float | None = None
    frame: int | None = None
    box: Box | None = None
    points: tuple[Point, ...] = ()
    excluded: tuple[Point, ...] = ()
    place: str = "prompt"

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.frame is None):
            raise ValueError(f"{self.place}: give a time or a frame, one of the two")
        if self.box is None and not self.points:
            raise ValueError(f"{self.place}: has neither a box nor a point of the object; write {EXAMPLE}")
        if not self.name.strip():
            raise ValueError(f"{self.place}: its name is empty; write one after =, or leave out the =")

    @property
    def time(self) -> str:
        """When it shows the object, as it is written."""
        return f"frame {self.frame}" if self.seconds is None else f"{self.seconds:.9g}s"

    def __str__(self) -> str:
        marks = [f"box {' '.join(map(str, self.box))}"] if self.box else []
        marks += [f"point {x} {y}" for x, y in self.points] + [f"not {x} {y}" for x, y in self.excluded]
        return f"{self.time}: {', '.join(marks)} = {self.name}"

    def check_within(self, width: int, height: int) -> None:
        """Checks that it lies within the frame.

        Args:
            width: of the video, pixels.
            height: of the video, pixels.

        Raises:
            ValueError: a box or a point lies outside, or a box is empty.
        """
        size = f"the video is {width} x {height} pixels"
        if self.box:
            left, top, box_width, box_height = self.box
            if not (box_width and box_height and left + box_width <= width and top + box_height <= height):
                raise ValueError(
                    f"{self.place}: {self}: the box is not within the frame: {size}; write left, top, width and height"
                )
        for x, y in (*self.points, *self.excluded):
            if x >= width or y >= height:
                raise ValueError(f"{self.place}: {self}: the point {x} {y} is not within the frame: {size}")


def parse_prompt(text: str, name: str, place: str = "prompt") -> Prompt:
    """Reads a prompt.

    Args:
        text: as the module describes it.
        name: that of an object whose prompt has none.
        place: where the prompt is given, for errors.

    Raises:
        ValueError: the text is no prompt; names the place, the text and what to write.
    """
    shown = f"{place}: {text.strip()!r}"
    if not (found := _PROMPT.fullmatch(text.strip())):
        raise ValueError(f"{shown} is not TIME: WHERE = NAME; write for example {EXAMPLE}")
    time = found["time"].strip()
    seconds, frame = _SECONDS.fullmatch(time), _FRAME.fullmatch(time)
    if not seconds and not frame:
        raise ValueError(f"{shown}: the time is {time!r}; write seconds as 0.5s, or frame 12")
    boxes, points, excluded = _marks(found["where"].strip(" ,\t"), shown)
    if len(boxes) > 1:
        raise ValueError(f"{shown}: has {len(boxes)} boxes; give each object a prompt of its own")
    try:
        return Prompt(
            name=name if found["name"] is None else found["name"].strip(),
            seconds=float(seconds[1]) if seconds else None,
            frame=int(frame[1]) if frame else None,
            box=boxes[0] if boxes else None,
            points=tuple(points),
            excluded=tuple(excluded),
            place=place,
        )
    except ValueError as error:
        raise ValueError(f"{shown}{str(error).removeprefix(place)}") from error


def parse_prompts(lines: Iterable[tuple[str, str]]) -> list[Prompt]:
    """Reads prompts; those without a name are `object 1`, `object 2` and so on, by their position.

    Args:
        lines: the place and the text of each.

    Raises:
        ValueError: as `parse_prompt`.
    """
    return [parse_prompt(text, f"object {number}", place) for number, (place, text) in enumerate(lines, start=1)]


def _marks(where: str, shown: str) -> tuple[list[Box], list[Point], list[Point]]:
    """Returns boxes, points and excluded points."""
    boxes: list[Box] = []
    points: dict[str, list[Point]] = {"point": [], "not": []}
    at = 0
    while at < len(where):
        mark = _MARK.match(where, at)
        numbers = [int(number) for number in re.findall(r"\d+", mark[2])] if mark else []
        match mark and mark[1], numbers:
            case "box", [left, top, width, height]:
                boxes.append((left, top, width, height))
            case ("point" | "not") as kind, [x, y]:
                points[str(kind)].append((x, y))
            case _:
                raise ValueError(
                    f"{shown}: {where[at:].strip(' ,')!r} is not understood; write box LEFT TOP WIDTH HEIGHT, "
                    "point X Y or not X Y, in whole pixels"
                )
        assert mark is not None, "a mark matched above"
        at = mark.end()
    return boxes, points["point"], points["not"]
