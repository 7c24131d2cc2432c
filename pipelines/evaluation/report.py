"""Reports of a benchmark sweep: tables as Parquet, CSV and Markdown, and a self-contained page with charts.

Numbers of different protocols never share a column. On the page, our numbers stand beside those of the OpenVIS paper.
"""

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import BinaryIO, Literal

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipelines.evaluation.benchmark import Benchmark
from pipelines.evaluation.benchmarks import BENCHMARKS, Protocol
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
from pipelines.evaluation.published import PublishedRow, published
from pipelines.metrics.errors import KINDS
from pipelines.metrics.rules import EMPTY_MEAN
from pipelines.storage.files import Storage

DASH = "–"


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The result of one checkpoint on one data set with one ablation.

    Attributes:
        checkpoint: name of the checkpoint in the sweep.
        dataset: name of the data set in the sweep.
        ablation: name of the ablation in the sweep.
        protocol: benchmark whose rules apply.
        top_k: predictions kept per video.
        status: `failed` if there is an error; `unscored` if the data set has no annotations.
        error: why there are no numbers; None if there are.
        numbers: flat names as the scorer gives them: fractions, but percent in BURST's table; -1 for a mean of nothing.
        errors: AP50 lost to each kind of error, fractions.
        warnings: what the scorer noticed in the files.
        about: everything the numbers depend on: sha256 of the ground truth, fingerprint of the model, versions, …
        seconds: duration of the cell.
    """

    checkpoint: str
    dataset: str
    ablation: str
    protocol: Protocol
    top_k: int
    status: Literal["ok", "unscored", "failed"]
    error: str | None
    numbers: Mapping[str, float]
    errors: Mapping[str, float]
    warnings: Sequence[str]
    about: Mapping[str, str]
    seconds: float

    def __post_init__(self) -> None:
        if (self.status == "failed") != bool(self.error):
            raise ValueError(
                f"{self.checkpoint}, {self.dataset}, {self.ablation}: status {self.status!r} with error {self.error!r};"
                f" a failed cell needs an error that says why, others have None"
            )


_ERROR_COLOURS = dict(zip(KINDS, (BLUE, ORANGE, GREEN, PINK, SKY, RED), strict=True))


def write_report(results: Sequence[CellResult], folder: Path) -> None:
    """Writes `results.parquet`, `results.csv`, `results.md` and `index.html`; the same results give the same bytes.

    Tables have a row per cell, in the order of the results, with the main metrics of its protocol: in Parquet and CSV
    as the scorer gives them, in columns named by protocol (`lvvis/novel/AP`), null for -1; in Markdown and in the page
    in percent, a table per data set, with the ends of 95 % intervals in brackets where a protocol has them. The
    best number as shown is bold, so that 31.04 and 31.01 tie. The page has no scripts and loads nothing. Each file
    appears whole or not at all, and replaces an earlier one.

    Rows of the paper are shown for data sets whose names `published` knows.

    Args:
        results: at least one; cells differ in checkpoint, data set, ablation or protocol.
        folder: made if missing.

    Raises:
        ValueError: no results, a cell twice, an unknown kind of error, or a folder that cannot be written.
    """
    _check(results)
    table = _table(results)
    contents = {
        "results.parquet": _bytes(pq.write_table, table),
        "results.csv": _bytes(pa_csv.write_csv, table),
        "results.md": _markdown(results).encode(),
        "index.html": _page(results).encode(),
    }
    try:
        for name, content in contents.items():
            with Storage(str(folder)).write(name) as file:
                file.write(content)
    except OSError as error:
        raise ValueError(f"folder: cannot write to {folder} ({error.strerror}); choose another one") from error


def _check(results: Sequence[CellResult]) -> None:
    if not results:
        raise ValueError("results: expected at least one cell, got none")
    seen = set()
    for cell in results:
        key = (cell.checkpoint, cell.dataset, cell.ablation, cell.protocol)
        if key in seen:
            raise ValueError(f"results: the cell {', '.join(key)} occurs twice; give each its own name")
        if unknown := cell.errors.keys() - _ERROR_COLOURS.keys():
            raise ValueError(
                f"{', '.join(key)}: unknown errors {sorted(unknown)}; expected {', '.join(_ERROR_COLOURS)}"
            )
        seen.add(key)


def _value(numbers: Mapping[str, float], name: str) -> float | None:
    value = numbers.get(name, EMPTY_MEAN)
    return None if value == EMPTY_MEAN else value


def _table(results: Sequence[CellResult]) -> pa.Table:
    texts = ("checkpoint", "dataset", "ablation", "protocol", "status", "error")
    columns = {name: pa.array([getattr(cell, name) for cell in results], pa.string()) for name in texts}
    columns["top_k"] = pa.array([cell.top_k for cell in results], pa.int64())
    columns["seconds"] = pa.array([cell.seconds for cell in results], pa.float64())
    for protocol in dict.fromkeys(cell.protocol for cell in results):
        for name in BENCHMARKS[protocol].columns:
            values = [_value(cell.numbers, name) if cell.protocol == protocol else None for cell in results]
            columns[f"{protocol}/{name}"] = pa.array(values, pa.float64())
    for kind in _ERROR_COLOURS:
        columns[f"lost/{kind}"] = pa.array([_value(cell.errors, kind) for cell in results], pa.float64())
    for name in _abouts(results):
        columns[f"about/{name}"] = pa.array([cell.about.get(name) for cell in results], pa.string())
    return pa.table(columns)


def _abouts(results: Iterable[CellResult]) -> list[str]:
    return sorted({name for cell in results for name in cell.about})


def _bytes(write: Callable[[pa.Table, BinaryIO], None], table: pa.Table) -> bytes:
    sink = io.BytesIO()
    write(table, sink)
    return sink.getvalue()


def _groups(results: Sequence[CellResult]) -> dict[tuple[str, Protocol], list[CellResult]]:
    """Groups cells whose numbers may share columns: those of a data set and protocol."""
    groups: dict[tuple[str, Protocol], list[CellResult]] = {}
    for cell in results:
        groups.setdefault((cell.dataset, cell.protocol), []).append(cell)
    return groups


def _markdown(results: Sequence[CellResult]) -> str:
    lines = ["# Benchmark results", "", "Percent; k is the number of predictions kept per video.", ""]
    for (dataset, protocol), cells in _groups(results).items():
        benchmark = BENCHMARKS[protocol]
        head = ["Checkpoint", "Ablation", "k", *benchmark.columns.values(), "Status"]
        align = ["---", "---", *["---:"] * (1 + len(benchmark.columns)), "---"]
        lines += [f"## {_plain(dataset)}", "", f"Protocol: {benchmark.title}", ""]
        lines += [f"| {' | '.join(row)} |" for row in (head, align, *(_markdown_row(cell) for cell in cells))] + [""]
        notes = [
            f"- {_plain(f'{each.checkpoint}, {each.ablation}: {note}')}" for each in cells for note in each.warnings
        ]
        lines += ["Warnings:", "", *notes, ""] if notes else []
    return "\n".join(lines)


def _markdown_row(cell: CellResult) -> list[str]:
    status = f"failed: {_plain(cell.error)}" if cell.error else cell.status
    return [_plain(cell.checkpoint), _plain(cell.ablation), str(cell.top_k), *_texts(cell), status]


def _plain(text: str) -> str:
    """Escapes a text for Markdown, in one line."""
    return re.sub(r"([\\`*<>\[\]|~$&#]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


def _texts(cell: CellResult) -> list[str]:
    return [show_number(cell, name) for name in BENCHMARKS[cell.protocol].columns]


def show_number(cell: CellResult, name: str) -> str:
    """Returns a number in percent, with the ends of its 95 % interval if it has one; a dash for none."""
    low, high = (_percent(cell, f"{end}/{name}") for end in ("low", "high"))
    interval = "" if low is None or high is None else f" ({low:.1f} to {high:.1f})"
    return _shown(_percent(cell, name)) + interval


def _percent(cell: CellResult, name: str) -> float | None:
    return BENCHMARKS[cell.protocol].percent(cell.numbers, name)


def _shown(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}"


def _page(results: Sequence[CellResult]) -> str:
    template = files("pipelines.evaluation").joinpath("report.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        sections=[_section(*group, cells) for group, cells in _groups(results).items()],
        cells=results,
        failed=[cell for cell in results if cell.error],
        warned=[cell for cell in results if cell.warnings],
        abouts=_abouts(results),
        kinds=_ERROR_COLOURS,
    )


def _section(dataset: str, protocol: Protocol, cells: Sequence[CellResult]) -> dict[str, object]:
    benchmark, rows = BENCHMARKS[protocol], published(dataset, protocol)
    done = [cell for cell in cells if cell.status == "ok"]
    return {
        "dataset": dataset,
        "benchmark": benchmark,
        "rows": list(zip(cells, _marked(benchmark, [_texts(cell) for cell in cells]), strict=True)),
        "errors": [(cell, [_shown(value) for value in _points(cell)]) for cell in done if cell.errors],
        "charts": _charts(dataset, benchmark, cells) if done else [],
        "paper": _beside(benchmark, [row for row in rows if not row.variant], done),
        "variants": _beside(benchmark, [row for row in rows if row.variant], []),
    }


def _marked(benchmark: Benchmark, rows: Sequence[Sequence[str]]) -> list[list[tuple[str, bool]]]:
    """Pairs each number with whether no other in its column is higher as shown; controls are never best."""
    values = [[None if text == DASH else float(text.partition(" ")[0]) for text in row] for row in rows]
    highest = [
        max((value for value in column if value is not None), default=None) for column in zip(*values, strict=True)
    ]
    return [
        [
            (text, value is not None and value == top and name not in benchmark.controls)
            for name, text, value, top in zip(benchmark.columns, row, parsed, highest, strict=True)
        ]
        for row, parsed in zip(rows, values, strict=True)
    ]


def _points(cell: CellResult) -> tuple[float | None, ...]:
    """Returns the AP50 lost to each kind of error, percentage points."""
    values = (_value(cell.errors, kind) for kind in _ERROR_COLOURS)
    return tuple(None if value is None else 100 * value for value in values)


def _charts(dataset: str, benchmark: Benchmark, cells: Sequence[CellResult]) -> list[tuple[str, Markup]]:
    """Returns titles and drawings."""

    def rows(*names: str) -> list[ChartRow]:
        return [_row(cell, tuple(_percent(cell, name) for name in names)) for cell in cells]

    main, where = benchmark.columns[benchmark.headline[0]], f"on {dataset} ({benchmark.title})"
    charts = [(main, bar_chart(rows(benchmark.headline[0]), f"{main} (%)", f"{main} {where}"))]
    if any(cell.errors for cell in cells):
        title, lost = "What AP50 is lost to", [_row(cell, _points(cell)) for cell in cells]
        charts.append((title, stacked_chart(lost, _ERROR_COLOURS, "AP50 lost (percentage points)", f"{title} {where}")))
    if benchmark.pair:
        names = benchmark.columns[benchmark.pair[0]], benchmark.columns[benchmark.pair[1]]
        title = " and ".join(names)
        charts.append((title, pair_chart(rows(*benchmark.pair), names, "AP (%)", f"{title} {where}")))
    return charts


def _row(cell: CellResult, values: tuple[float | None, ...]) -> ChartRow:
    return ChartRow(cell.checkpoint, cell.ablation, values, DASH if cell.status == "ok" else cell.status)


def _beside(
    benchmark: Benchmark, rows: Sequence[PublishedRow], cells: Sequence[CellResult]
) -> dict[str, object] | None:
    """Builds a table of published rows and the same numbers of our cells; None without rows."""
    names = [name for name in benchmark.columns if any(name in row.printed for row in rows)]
    if not names:
        return None
    return {
        "labels": [benchmark.columns[name] for name in names],
        "ours": [(cell, [_shown(_percent(cell, name)) for name in names]) for cell in cells],
        "rows": [(row, [row.printed.get(name, DASH) for name in names]) for row in rows],
    }
