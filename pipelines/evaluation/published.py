"""Numbers that papers report, to be read beside our own; the rows are in `published.csv`.

Most are from the OpenVIS paper (Guo et al., AAAI-25), Tables 1 to 6. They were read from its text, in which tick marks
are lost. Left out for that reason or because they say nothing new:

- the OV column of Tables 1 and 3 and the Once column of Table 5, which are tick marks;
- four rows of Table 6: tick marks alone tell one of them (RNN, BURST 3.6, YouTube-VIS 49.9) from the full method; the
  other three have the numbers of lines 3 to 5 of Table 4;
- the shares of novel categories in Table 1.

On UVO, Table 4's second line has 13.2 where the paper's text has 13.1; for Table 1's first two rows the text names
BURST as training data, the table LVIS. The rows follow the tables. Lines of Tables 4 and 5 that start with "+" add to
the line before, or change it. On UVO, the AP of rows without a variant is the class-agnostic APc1, which the official
evaluator prints as AP. The paper does not say how many predictions per video it keeps, which year of YouTube-VIS and
which split of LV-VIS it uses. The BURST rows of OVFormer and CLIP-VIS are by an evaluator that is not BURST's; nobody
has shown that those papers used exactly that file.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

from pipelines.evaluation.benchmarks import BENCHMARKS, Protocol

_TEXTS = ("publication", "table", "dataset", "protocol", "method", "training", "variant")


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """A row of a table that was published elsewhere.

    Attributes:
        method: its name there, spelled out.
        dataset: YouTube-VIS, LV-VIS, UVO or BURST.
        protocol: the benchmark whose rules apply, or come nearest if there is a `variant`.
        variant: how the numbers were computed differently, so that they must not share a column with the protocol's;
            None if by the protocol.
        training: the training data as printed, with the number of categories where given; None if not stated.
        printed: percent, digit for digit, under the names of our scores.
        source: the publication and its table.
    """

    method: str
    dataset: str
    protocol: Protocol
    variant: str | None
    training: str | None
    printed: Mapping[str, str]
    source: str

    @property
    def numbers(self) -> dict[str, float]:
        """The printed numbers as floats."""
        return {name: float(text) for name, text in self.printed.items()}


def published(dataset: str, protocol: Protocol) -> tuple[PublishedRow, ...]:
    """Returns the rows of a data set, those by a variant of the protocol last.

    Args:
        dataset: its name, in any spelling and with the split or year that the numbers are from: `YTVIS-19 val`,
            `lvvis_val`, `UVO dense`, `burst`. Other names have no rows: no numbers are known to be comparable.
        protocol: the benchmark whose rules the numbers follow.
    """
    names = BENCHMARKS[protocol].published_names
    if names is None or not re.fullmatch(names, re.sub(r"[^a-z0-9]", "", dataset.lower())):
        return ()
    rows = [row for row in ROWS if row.protocol == protocol]
    return tuple(sorted(rows, key=lambda row: row.variant is not None))


def _read() -> tuple[PublishedRow, ...]:
    text = files("pipelines.evaluation").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_row(entry) for entry in csv.DictReader(text.splitlines()))


def _row(entry: dict[str, str]) -> PublishedRow:
    (protocol,) = (name for name in BENCHMARKS if name == entry["protocol"])
    return PublishedRow(
        method=entry["method"],
        dataset=entry["dataset"],
        protocol=protocol,
        variant=entry["variant"] or None,
        training=entry["training"] or None,
        printed=MappingProxyType({name: text for name, text in entry.items() if name not in _TEXTS and text}),
        source=f"{entry['publication']}, Table {entry['table']}" if entry["table"] else entry["publication"],
    )


ROWS = _read()
"""All rows, by table."""
