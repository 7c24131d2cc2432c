import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

from pipelines.evaluation import report
from pipelines.evaluation.benchmarks import Protocol
from pipelines.evaluation.published import ROWS, published
from pipelines.evaluation.report import CellResult, write_report
from pipelines.metrics.errors import KINDS

SHA = "ab" * 32
NAMES: Mapping[str, Protocol] = {"ytvis19": "ytvis", "lvvis": "lvvis", "uvo": "uvo", "burst": "burst"}


def cell(numbers: Mapping[str, float] | None = None, **changes: Any) -> CellResult:
    base = CellResult(
        checkpoint="base",
        dataset="shapes",
        ablation="rollout",
        protocol="lvvis",
        top_k=50,
        status="ok",
        error=None,
        numbers={"AP": 0.25, "base/AP": 0.3, "novel/AP": 0.2, "APs": -1.0, "AP/cat/12": 0.5} | dict(numbers or {}),
        errors=dict.fromkeys(KINDS, 0.05),
        warnings=[],
        about={"ground_truth": SHA, "openvis": "0.1.0"},
        seconds=12.25,
    )
    return replace(base, **changes)


def failed(error: str, **changes: Any) -> CellResult:
    return replace(cell(), status="failed", error=error, numbers={}, errors={}, about={}, **changes)


BURST = {"class_guided/HOTA/all": 17.25, "class_guided/AP/common": 8.0, "class_guided/AP/uncommon": -1.0}
SWEEP = [
    cell(),
    cell({"AP": 0.2512}, ablation="hungarian"),
    failed("size | 480x640\nnot <360x640>", checkpoint="tuned"),
    cell(BURST, dataset="burst", protocol="burst", errors={}),
    cell({"AR100": 0.4}, dataset="uvo", protocol="uvo", top_k=100),
]


class Page(HTMLParser):
    """Rows of the tables by class, each cell as its text, and what is bold; fails where tags do not fit together."""

    VOID = ("meta",)

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.source = (folder / "index.html").read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.bold: list[tuple[str, int, int]] = []  # class of the table, row, column
        self.texts: dict[str, list[str]] = {}
        self.name = ""
        self.feed(self.source)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.VOID:
            return
        self.open.append(tag)
        if tag == "table":
            self.name = dict(attrs).get("class") or "errors"
            self.tables.setdefault(self.name, []).append([])
        elif tag == "tr":
            self.tables[self.name][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self.name][-1][-1].append("")
        elif tag == "b":
            table = self.tables[self.name][-1]
            self.bold.append((self.name, len(table) - 1, len(table[-1]) - 1))
        elif tag in ("pre", "figcaption"):
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.tables[self.name][-1][-1][-1] += data
        for tag in ("pre", "figcaption"):
            if tag in self.open:
                self.texts[tag][-1] += data


def test_tables_are_read_back(tmp_path: Path) -> None:
    write_report(SWEEP, tmp_path / "new")
    parquet, comma = str(tmp_path / "new" / "results.parquet"), str(tmp_path / "new" / "results.csv")
    table = pq.read_table(parquet)
    assert table.num_rows == len(SWEEP)
    assert table["lvvis/AP"].to_pylist() == [0.25, 0.2512, None, None, None]
    assert table["lvvis/APs"].to_pylist() == [None] * 5
    assert table["burst/class_guided/HOTA/all"].to_pylist() == [None, None, None, 17.25, None]
    assert table["burst/class_guided/AP/uncommon"].null_count == 5
    assert table["uvo/AP"].to_pylist() == [None, None, None, None, 0.25]
    assert table["lost/missed"].to_pylist() == [0.05, 0.05, None, None, 0.05]
    assert table["about/ground_truth"].to_pylist() == [SHA, SHA, None, SHA, SHA]
    assert table["error"].to_pylist()[2] == "size | 480x640\nnot <360x640>"
    assert not {"AP", "ytvis/AP", "lvvis/AP/cat/12"} & set(table.column_names)

    frame = pd.read_csv(comma)
    pd.testing.assert_frame_equal(frame, pd.read_parquet(parquet), check_dtype=False)
    question = 'select checkpoint, status, top_k, "lvvis/AP" from {} where "lvvis/AP" > 0.25 or status = \'failed\''
    for file in (parquet, comma):
        rows = duckdb.sql(question.format(f"'{file}'")).fetchall()
        assert rows == [("base", "ok", 50, 0.2512), ("tuned", "failed", 50, None)]


def test_markdown(tmp_path: Path) -> None:
    write_report(SWEEP, tmp_path)
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert "| base | rollout | 50 | 25.0 | 30.0 | 20.0 | – | – | – | – | – | – | ok |" in lines
    assert any(
        "| tuned | rollout | 50 | – |" in line and "failed: size \\| 480x640 not \\<360x640\\> |" in line
        for line in lines
    )
    assert any("| 17.2 | – | – | – | – | – | 8.0 | – |" in line for line in lines)  # BURST is in percent already
    assert sum(line.startswith("| ") and line.endswith((" ok |", "> |")) for line in lines) == len(SWEEP)
    widths = {line.count("|") - line.count("\\|") for line in lines if line.startswith(("| base", "| tuned"))}
    assert widths == {14, 16, 11}  # LV-VIS, BURST, UVO: a table each


def test_shapes_has_its_own_columns(tmp_path: Path) -> None:
    numbers = {"AP": 0.3, "base/AP": -1.0, "novel/AP": 0.3, "micro/AP": 0.1, "top1": 0.25, "agnostic/AP": 0.5}
    numbers |= {"low/top1": 0.2, "high/top1": 0.31, "permuted/AP": 0.002}
    write_report([cell(numbers, dataset="novel", protocol="shapes"), cell()], tmp_path)
    page = Page(tmp_path)
    head, row = page.tables["results"][0]
    shown = dict(zip(head, row, strict=True))
    assert shown["AP"] == "30.0"
    assert (shown["AP base"], shown["AP novel"], shown["micro AP"]) == ("–", "30.0", "10.0")
    assert (shown["top-1"], shown["agnostic AP"], shown["permuted AP"]) == ("25.0 (20.0 to 31.0)", "50.0", "0.2")
    bold = re.findall(r"<b>([^<]*)</b>", (tmp_path / "index.html").read_text())
    assert "50.0" in bold
    assert "0.2" not in bold  # a control is not to be high
    table = pq.read_table(str(tmp_path / "results.parquet"))
    assert table["shapes/top1"].to_pylist() == [0.25, None]
    assert "Protocol: Shapes" in (tmp_path / "results.md").read_text()


def test_names_stay_as_they_are_in_markdown(tmp_path: Path) -> None:
    write_report([cell(checkpoint="_a_ b_c *d* `e` [f](g)", ablation="h|i\nj")], tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| \\_a\\_ b_c \\*d\\* \\`e\\` \\[f\\](g) | h\\|i j |" in text


def test_the_best_is_bold_and_so_are_ties(tmp_path: Path) -> None:
    rows = [
        cell({"AP": 0.3004, "base/AP": 0.1, "novel/AP": -1.0}),
        cell({"AP": 0.3001, "base/AP": 0.099, "novel/AP": 0.0}, ablation="b"),
        cell({"AP": 0.29, "base/AP": 0.0}, ablation="c"),
        failed("no", ablation="d"),
        cell({"AP": 0.9}, dataset="other"),
    ]
    write_report(rows, tmp_path)
    page = Page(tmp_path)
    head, *body = page.tables["results"][0]
    assert head[2:6] == ["k", "AP", "AP base", "AP novel"]
    assert [row[3:6] for row in body[:3]] == [["30.0", "10.0", "–"], ["30.0", "9.9", "0.0"], ["29.0", "0.0", "20.0"]]
    assert body[3][3:] == ["failed"]
    assert [(row, column) for _, row, column in page.bold][:4] == [(1, 3), (1, 4), (2, 3), (3, 5)]
    assert all(page.tables["results"][0][row][column] != "–" for _, row, column in page.bold[:4])


def test_what_users_name_is_text(tmp_path: Path) -> None:
    name = '<script>alert("1")</script>&amp; $\\frac{$ <b>'
    about = {"<i>key": "<i>value"}
    cells = [cell(checkpoint=name, dataset=name, ablation=name, about=about), failed(f"{name} failed", dataset=name)]
    write_report(cells, tmp_path)
    page = Page(tmp_path)
    assert not re.search("<(script|i)>", page.source)
    assert page.tables["results"][0][1][:2] == [name, name]
    assert page.texts["pre"] == [f"{name} failed"]
    assert page.tables["provenance"][0][0][-1] == "<i>key"
    assert page.tables["provenance"][0][1][-1] == "<i>value"


def test_failed_cells_have_their_error_in_full(tmp_path: Path) -> None:
    error = "line 1\n" + "x" * 5000
    write_report([cell(), failed(error, ablation="b")], tmp_path)
    page = Page(tmp_path)
    assert page.texts["pre"] == [error]
    assert ">1 failed<" in page.source
    write_report([cell()], tmp_path)
    assert "Failed cells" not in Page(tmp_path).source


def test_a_sweep_of_failures_has_a_page(tmp_path: Path) -> None:
    write_report([failed("no", dataset="burst", protocol="burst")], tmp_path)
    page = Page(tmp_path)
    assert "<svg" not in page.source
    assert page.texts["pre"] == ["no"]
    assert not page.bold


def test_charts_of_each_protocol(tmp_path: Path) -> None:
    write_report(SWEEP, tmp_path)
    page = Page(tmp_path)
    lost = "What AP50 is lost to"
    captions = ["AP", lost, "AP base and AP novel", "HOTA all", "AP common and AP uncommon", "AP", lost]
    assert page.texts["figcaption"] == captions
    assert page.source.count("<svg") == len(captions)
    ids = re.findall(r' id="([^"]*)"', page.source)
    assert len(set(ids)) == len(ids)
    assert [row[2:] for row in page.tables["errors"][0][1:]] == [["5.0"] * 6] * 2


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    write_report([*SWEEP, *(cell(dataset=name, protocol=NAMES[name], ablation="p") for name in NAMES)], tmp_path)
    source = (tmp_path / "index.html").read_text()
    assert not re.search(r"https?://|<script|<link|<img|<iframe|\ssrc=|@import|@font-face", source)
    assert set(re.findall(r"url\((.)", source)) == {"#"}
    assert set(re.findall(r'href="(.)', source)) == {"#"}
    targets = re.findall(r'(?:href="|url\()#([\w-]+)', source)
    assert set(targets) <= set(re.findall(r' id="([^"]*)"', source))


@pytest.mark.parametrize(("name", "protocol"), NAMES.items())
def test_all_published_numbers_of_a_data_set_are_shown(name: str, protocol: Protocol, tmp_path: Path) -> None:
    write_report([cell(dataset=name, protocol=protocol)], tmp_path)
    page = Page(tmp_path)
    rows = [row for table in ("paper", "variants") for row in page.tables.get(table, [[]])[0]]
    shown = [
        text for row in rows if not row[-1].startswith("this sweep") for text in row if re.fullmatch(r"\d+\.\d+", text)
    ]
    mine = [row for row in ROWS if row.protocol == protocol]
    assert sorted(map(float, shown)) == sorted(number for row in mine for number in row.numbers.values())


@pytest.mark.parametrize(("name", "protocol"), NAMES.items())
def test_variants_never_stand_beside_our_numbers(name: str, protocol: Protocol, tmp_path: Path) -> None:
    write_report([cell(dataset=name, protocol=protocol)], tmp_path)
    page = Page(tmp_path)
    head, ours, *paper = page.tables["paper"][0]
    assert ours[0] == "base, rollout"
    assert ours[-1] == "this sweep, k = 50"
    same = [row for row in published(name, protocol) if not row.variant]
    assert [row[0] for row in paper] == [row.method for row in same]
    assert [row[-1] for row in paper] == [row.source for row in same]
    variants = [row for row in published(name, protocol) if row.variant]
    assert ("variants" in page.tables) == bool(variants)
    for row in variants:
        assert any(each[0] == row.method for each in page.tables["variants"][0])
        assert f"Variant protocol: {row.variant}" in [each[0] for each in page.tables["variants"][0]]
    assert head[0] == "Method"


def test_papers_are_not_shown_beside_other_data(tmp_path: Path) -> None:
    write_report(
        [cell(), cell(dataset="ytvis21", protocol="ytvis"), failed("no", dataset="ovis", protocol="ytvis")], tmp_path
    )
    assert not {"paper", "variants"} & set(Page(tmp_path).tables)


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_report(SWEEP, tmp_path / folder)
    names = ["index.html", "results.csv", "results.md", "results.parquet"]
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == names
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_nothing_is_written_if_a_part_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report([cell()], tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(report, "_page", lambda results: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(SWEEP, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_cannot_be_reported_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one cell"):
        write_report([], tmp_path)
    with pytest.raises(ValueError, match="the cell base, shapes, rollout, lvvis occurs twice"):
        write_report([cell(), cell(top_k=10)], tmp_path)
    with pytest.raises(ValueError, match=r"unknown errors \['blur'\]"):
        write_report([cell(errors={"blur": 0.1})], tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot write to"):
        write_report([cell()], tmp_path / "file")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("status", "error"), [("failed", None), ("failed", ""), ("ok", "why")])
def test_a_cell_failed_if_it_has_an_error(status: str, error: str | None) -> None:
    with pytest.raises(ValueError, match="needs an error that says why"):
        cell(status=status, error=error)
