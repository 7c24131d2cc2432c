"""Charts of a report as inline SVG: rows of horizontal bars, grouped under headings, in the colours of the page."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

BLUE, ORANGE, GREEN, PINK, SKY, RED = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
"""Okabe and Ito's colours, which colour-blind people can tell apart."""

# Stand-ins for colours that the page defines, for light and for dark.
_INK, _FAINT, _PAPER = "#010101", "#020202", "#030303"
_THEME = {_INK: "var(--ink)", _FAINT: "var(--line)", _PAPER: "var(--paper)"}
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # the second is as wide, where the first is missing
    "font.size": 10,
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # names may contain dollar signs
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_WIDTH, _ROW, _KEYS, _AROUND = 6.2, 0.27, 0.24, 0.6  # inches: the figure, a row, a row of the legend, the axis
_LONGEST = 32  # characters of a name
_BAR = 0.68  # of a row's height


@dataclass(frozen=True)
class ChartRow:
    """A row of a chart.

    Attributes:
        group: the heading above the row; rows of a group need not follow each other.
        name: the label beside the row.
        values: numbers of 0 or more; None where one is missing.
        note: shown in place of the values if all are missing.
    """

    group: str
    name: str
    values: tuple[float | None, ...]
    note: str = "–"


def bar_chart(rows: Sequence[ChartRow], axis: str, description: str) -> Markup:
    """Draws a bar per row, with its value.

    Args:
        rows: rows from top to bottom.
        axis: label of the axis, with the unit.
        description: text for readers who cannot see the chart; unique on the page.

    Returns:
        An SVG element for HTML. Its colours are the page's `--ink`, `--line` and `--paper`.
    """
    with rc_context(_STYLE):
        figure, axes, places = _canvas(rows, axis)
        for row, y in zip(rows, places, strict=True):
            value = row.values[0]
            if value is not None:
                axes.barh(y, value, _BAR, color=BLUE)
                _beside(axes, value, y, f"{value:.1f}")
        return _svg(figure, axes, rows, places, description)


def stacked_chart(rows: Sequence[ChartRow], series: Mapping[str, str], axis: str, description: str) -> Markup:
    """Draws a bar per row, stacked from the parts that `series` names and colours.

    Returns:
        An SVG element, as from `bar_chart`.
    """
    with rc_context(_STYLE):
        figure, axes, places = _canvas(rows, axis)
        for row, y in zip(rows, places, strict=True):
            left = 0.0
            for value, colour in zip(row.values, series.values(), strict=True):
                axes.barh(y, value or 0, _BAR, left, color=colour, edgecolor=_PAPER, linewidth=0.8)
                left += value or 0
        _legend(figure, [Patch(color=colour, label=name) for name, colour in series.items()])
        return _svg(figure, axes, rows, places, description)


def pair_chart(rows: Sequence[ChartRow], names: tuple[str, str], axis: str, description: str) -> Markup:
    """Draws two dots per row, of different shapes, and a line between them.

    Returns:
        An SVG element, as from `bar_chart`.
    """
    marks = (("o", BLUE, 9), ("D", ORANGE, 6))  # where they coincide, the first shows behind the second
    with rc_context(_STYLE):
        figure, axes, places = _canvas(rows, axis)
        for row, y in zip(rows, places, strict=True):
            present = [value for value in row.values if value is not None]
            axes.plot(present, [y] * len(present), color=_FAINT, linewidth=3, zorder=1)
            for value, (marker, colour, size) in zip(row.values, marks, strict=True):
                if value is not None:
                    axes.plot([value], [y], marker, color=colour, markersize=size, clip_on=False)
        keys = [
            Line2D([], [], linestyle="none", marker=marker, color=colour, markersize=size, label=name)
            for name, (marker, colour, size) in zip(names, marks, strict=True)
        ]
        _legend(figure, keys)
        return _svg(figure, axes, rows, places, description)


def _canvas(rows: Sequence[ChartRow], axis: str) -> tuple[Figure, Axes, list[float]]:
    """Returns an empty chart with names and headings, and the position of each row on its y axis."""
    places, headings, y = [0.0] * len(rows), {}, 0.0
    for group in dict.fromkeys(row.group for row in rows):
        headings[group] = y
        members = [index for index, row in enumerate(rows) if row.group == group]
        for offset, index in enumerate(members, start=1):
            places[index] = y + offset
        y += 1.3 + len(members)
    figure = Figure(figsize=(_WIDTH, _AROUND + _ROW * y), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylim(y - 0.6, -0.6)
    axes.set_yticks(places, [_short(row.name) for row in rows])
    for group, place in headings.items():
        label = axes.text(0, place, _short(group), transform=axes.get_yaxis_transform(), weight="bold", va="center")
        label.set_bbox({"facecolor": _PAPER, "edgecolor": "none", "pad": 1})  # the grid ends at it
    axes.set_xlabel(axis)
    axes.update_datalim([(1, 0)])  # draws an axis even without values
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis="x", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes, places


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _beside(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=9)


def _legend(figure: Figure, keys: Sequence[Patch | Line2D]) -> None:
    """Adds a legend above the chart, in rows of three; the figure grows by them."""
    columns = 3
    figure.set_figheight(figure.get_figheight() + _KEYS * -(-len(keys) // columns))
    by_column = [key for column in range(columns) for key in keys[column::columns]]
    figure.legend(
        handles=by_column, loc="outside upper left", ncols=columns, frameon=False, handlelength=1, handleheight=1
    )


def _svg(figure: Figure, axes: Axes, rows: Sequence[ChartRow], places: Sequence[float], description: str) -> Markup:
    for row, y in zip(rows, places, strict=True):
        if all(value is None for value in row.values):
            _beside(axes, 0, y, row.note)
    axes.set_xlim(0, axes.dataLim.xmax * 1.1)  # room for the longest bar's value
    sink = io.StringIO()
    with rc_context({"svg.hashsalt": description}):  # ids are the same each time, and differ between charts of a page
        figure.savefig(sink, format="svg", metadata=_METADATA)
    _, box, drawn = re.split(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', sink.getvalue(), maxsplit=1)
    # Drop what would affect the whole page: a style for all elements, and ids that every chart repeats.
    drawn = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", drawn, count=1, flags=re.DOTALL)
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)
    for stand_in, colour in _THEME.items():
        drawn = re.sub(f"(fill|stroke): {stand_in}", rf"\1: {colour}", drawn)
    head = Markup('<svg role="img" aria-label="{}" viewBox="{}" style="width: {}in">').format(description, box, _WIDTH)
    return head + Markup(drawn)  # noqa: S704 - matplotlib has escaped the names in it
