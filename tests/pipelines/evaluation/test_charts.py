import re
from xml.etree import ElementTree

import pytest
from markupsafe import Markup
from matplotlib import rcParams

from pipelines.evaluation.charts import (
    BLUE,
    GREEN,
    ORANGE,
    PINK,
    RED,
    SKY,
    ChartRow,
    bar_chart,
    pair_chart,
    stacked_chart,
)

NUMBER = r"(-?[\d.]+)"


def parse(chart: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(f'<page xmlns:xlink="x">{chart}</page>')  # noqa: S314 - our own


def texts(chart: Markup) -> list[str]:
    return ["".join(text.itertext()) for text in parse(chart).iter("text")]


def widths(chart: Markup, colour: str) -> list[float]:
    """Widths of filled boxes with a colour, from left to right in the order drawn."""
    shapes = [path.get("d", "") for path in parse(chart).iter("path") if f"fill: {colour.lower()}" in str(path.attrib)]
    xs = [[float(x) for x in re.findall(rf"[ML] {NUMBER} ", shape)] for shape in shapes]
    return [max(each) - min(each) for each in xs]


def test_bars_are_as_long_as_their_values() -> None:
    rows = [ChartRow("a", "x", (10.0,)), ChartRow("b", "x", (30.04,)), ChartRow("a", "y", (20.0,))]
    chart = bar_chart(rows, "AP (%)", "d")
    first, second, third = widths(chart, BLUE)
    assert second / first == pytest.approx(3.004, rel=1e-3)
    assert third / first == pytest.approx(2, rel=1e-3)
    shown = texts(chart)
    assert {"10.0", "30.0", "20.0", "AP (%)", "a", "b"} <= set(shown)
    assert [text for text in shown if text in ("x", "y")] == ["x", "x", "y"]
    assert shown.count("a") == 1


def test_a_row_without_a_value_has_its_note() -> None:
    rows = [ChartRow("a", "x", (None,)), ChartRow("a", "y", (None,), "failed"), ChartRow("a", "z", (0.0,))]
    shown = texts(bar_chart(rows, "AP (%)", "d"))
    assert {"–", "failed", "0.0"} <= set(shown[-4:])
    assert "None" not in shown


def test_charts_without_any_value_have_an_axis() -> None:
    for chart in (
        bar_chart([ChartRow("g", "n", (None,))], "AP (%)", "d"),
        stacked_chart([ChartRow("g", "n", (None, None))], {"a": BLUE, "b": RED}, "AP (%)", "d"),
        pair_chart([ChartRow("g", "n", (None, None))], ("a", "b"), "AP (%)", "d"),
    ):
        assert {"n", "–", "0.0", "1.0"} <= set(texts(chart))


def test_stacked_parts_follow_each_other() -> None:
    series = dict(zip("abcdef", (BLUE, ORANGE, GREEN, PINK, SKY, RED), strict=True))
    chart = stacked_chart([ChartRow("g", "n", (4.0, 2.0, None, 0.0, 1.0, 3.0))], series, "lost", "d")
    legend = widths(chart, GREEN)[-1]
    wide = {name: sum(w for w in widths(chart, colour) if w != legend) for name, colour in series.items()}
    assert wide["a"] / wide["b"] == pytest.approx(2, rel=1e-3)
    assert wide["f"] / wide["e"] == pytest.approx(3, rel=1e-3)
    assert wide["c"] == wide["d"] == 0
    assert set("abcdef") <= set(texts(chart))


def test_a_pair_has_a_dot_per_value() -> None:
    rows = [ChartRow("g", "n", (4.0, 2.0)), ChartRow("g", "m", (3.0, None)), ChartRow("g", "o", (None, None))]
    chart = pair_chart(rows, ("base", "novel"), "AP (%)", "d")
    uses = [use.get("style", "") for use in parse(chart).iter("use")]
    assert sum(BLUE.lower() in style for style in uses) == 2 + 1  # and the legend's
    assert sum(ORANGE.lower() in style for style in uses) == 1 + 1
    assert {"base", "novel", "–"} <= set(texts(chart))


def test_colours_are_those_of_the_page() -> None:
    chart = str(bar_chart([ChartRow("g", "n", (4.0,))], "AP (%)", "d"))
    assert "fill: var(--ink)" in chart
    assert "stroke: var(--line)" in chart
    assert "fill: var(--paper)" in chart
    left = set(re.findall(r"#[0-9a-f]{6}\b", chart))
    assert left == {BLUE.lower()}  # nothing else is black or white by itself


def test_names_are_text_whatever_they_contain() -> None:
    name = 'a <b> & "c" $\\frac{$ x'
    chart = bar_chart([ChartRow(name, name, (1.0,))], "AP (%)", f"of {name}")
    assert texts(chart).count(name) == 2
    assert parse(chart)[0].get("aria-label") == f"of {name}"


def test_long_names_are_cut() -> None:
    shown = texts(bar_chart([ChartRow("g" * 33, "n" * 32, (1.0,))], "AP (%)", "d"))
    assert "g" * 31 + "…" in shown
    assert "n" * 32 in shown


def test_it_stands_in_a_page_beside_others() -> None:
    row = ChartRow("g", "n", (4.0, 5.0))
    charts = [pair_chart([row], ("a", "b"), "AP (%)", description) for description in ("one", "two")]
    ids = [re.findall(r' id="([^"]*)"', chart) for chart in charts]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    assert all(len(set(each)) == len(each) for each in ids)
    for each, chart in zip(ids, charts, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#(\w+)', chart)) <= set(each)
        assert not re.search("<style|<metadata|<!DOCTYPE|http", chart)


def test_the_same_rows_give_the_same_bytes_and_leave_settings_alone() -> None:
    before = dict(rcParams)
    rows = [ChartRow("g", "n", (4.0, 5.0))]
    assert pair_chart(rows, ("a", "b"), "AP (%)", "d") == pair_chart(rows, ("a", "b"), "AP (%)", "d")
    assert dict(rcParams) == before


def test_the_figure_grows_with_its_rows() -> None:
    heights = []
    for number in (2, 12):
        box = parse(bar_chart([ChartRow("g", str(i), (1.0,)) for i in range(number)], "AP", "d"))[0].get("viewBox", "")
        heights.append(float(box.split()[3]))
    assert heights[1] - heights[0] == pytest.approx(10 * 0.27 * 72, abs=1)
