"""Numbers that papers report, as data, to be read beside our own.

Most are from the OpenVIS paper (Guo et al., AAAI-25), Tables 1 to 6. They were read from its text, in which tick marks
are lost. Left out for that reason or because they say nothing new:

- the OV column of Tables 1 and 3 and the Once column of Table 5, which are tick marks;
- four rows of Table 6: one (RNN, BURST 3.6, YouTube-VIS 49.9) is told from the full method by tick marks alone; the
  other three have the numbers of lines 3 to 5 of Table 4;
- the shares of novel categories in Table 1.

Of Table 4's second line the paper's text says 13.1 on UVO, its table 13.2; for Table 1's first two rows the text names
BURST as training data, the table LVIS. The tables are followed. The paper does not say how many predictions per video
it keeps, which year of YouTube-VIS and which split of LV-VIS it uses.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Protocol = Literal["ytvis", "lvvis", "uvo", "burst", "shapes"]

_PAPER = "OpenVIS, AAAI-25, Table {}"
_AP = "class_guided/AP/"
_UVO_UNSETTLED = (
    "the paper does not say how this AP and its AR100 are computed; its class-agnostic AP is a third number"
)
_BURST_CONVERTED = (
    "YTVIS-style evaluation of converted annotations, as the code beside the paper ships it: nothing is federated, and"
    " duplicates of a track count as right"
)


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """A row of a table that was published elsewhere.

    Attributes:
        method: its name there, spelled out.
        dataset: YouTube-VIS, LV-VIS, UVO or BURST.
        protocol: whose rules, or which they are nearest to if there is a `variant`.
        variant: how the numbers were computed differently, so that they must not share a column with the protocol's;
            None if by the protocol.
        training: the training data as printed, with the number of categories where given; None if not stated.
        numbers: percent, as printed, under the names of our scores.
        source: the publication and its table.
    """

    method: str
    dataset: str
    protocol: Protocol
    variant: str | None = None
    training: str | None
    numbers: Mapping[str, float]
    source: str

    def printed(self, name: str) -> str | None:
        """A number with as many digits as its row has; None if the row lacks it."""
        digits = max(len(str(value).partition(".")[2]) for value in self.numbers.values())
        return f"{self.numbers[name]:.{digits}f}" if name in self.numbers else None


def published(dataset: str, protocol: Protocol) -> tuple[PublishedRow, ...]:
    """Returns the rows of a data set, those by a variant of the protocol last.

    Args:
        dataset: its name, in any spelling and with the split or year that the numbers are from: `YTVIS-19 val`,
            `lvvis_val`, `UVO dense`, `burst`. Other names have no rows: nothing is known to be comparable.
        protocol: that the rows are to share.
    """
    plain = re.sub(r"[^a-z0-9]", "", dataset.lower())
    rows = [row for row in ROWS if row.protocol == protocol and re.fullmatch(_SPELLINGS[row.dataset], plain)]
    return tuple(sorted(rows, key=lambda row: row.variant is not None))


# Papers that the YouTube-VIS rows come from use the valid split of 2019; that of 2021 has other videos.
_SPELLINGS = {
    "YouTube-VIS": r"(youtubevis|ytvis)((20)?19)?(val|valid|validation)?",
    "LV-VIS": r"lvvis(val|validation)?",
    "UVO": r"uvo(video)?(dense)?(val|validation)?(dense)?",
    "BURST": r"burst(val|validation)?",
}


def _table_1() -> list[PublishedRow]:
    """AP on BURST (all, common, uncommon categories) and on the novel categories of LV-VIS."""
    rows: list[tuple[str, str, tuple[float, float, float], float | None]] = [
        ("MRCNN-Box Tracker", "L-1203", (1.4, 3.0, 0.9), None),
        ("MRCNN-STCNTracker", "L-1203", (0.9, 0.7, 0.6), None),
        ("MinVIS", "CB-482", (1.4, 5.5, 0.5), None),
        ("Detic-SORT", "L-866", (1.9, 1.8, 2.5), 3.4),
        ("Detic-OWTB", "L-866", (2.7, 2.8, 1.8), 4.2),
        ("OV2Seg", "L-866", (3.7, 3.9, 2.4), 11.9),
        ("InstFormer", "CY-103", (4.2, 7.4, 3.5), 12.2),
    ]
    burst = [_burst(method, training, numbers, _PAPER.format(1)) for method, training, numbers, _ in rows]
    lvvis = [
        PublishedRow(
            method=method,
            dataset="LV-VIS",
            protocol="lvvis",
            training=training,
            numbers=MappingProxyType({"novel/AP": novel}),
            source=_PAPER.format(1),
        )
        for method, training, _, novel in rows
        if novel is not None
    ]
    return burst + lvvis


def _table_2() -> list[PublishedRow]:
    """UVO: APc1, the class-agnostic AP, is what the official evaluator prints as AP."""
    rows: list[tuple[str, str, dict[str, float], float | None]] = [
        ("MTRCNN", "YouTube-VIS", {"AP": 7.6, "AR100": 9.3}, None),
        ("MTRCNN", "UVO", {"AP": 11.2, "AR100": 17.4}, None),
        ("TAM", "SA-1B", {"AR100": 24.1}, 1.7),
        ("SAM-PT", "SA-1B", {"AR100": 28.8}, 6.7),
        ("InstFormer", "YouTube-VIS", {"AP": 16.7, "AR100": 24.7}, 7.2),
    ]
    source = _PAPER.format(2)
    unsettled = [_uvo(method, training, numbers, source, _UVO_UNSETTLED) for method, training, numbers, _ in rows]
    agnostic = [_uvo(method, training, {"AP": ap}, source) for method, training, _, ap in rows if ap is not None]
    return agnostic + unsettled


def _table_3() -> list[PublishedRow]:
    """YouTube-VIS: AP, AP50, AP75, AR10; the training data of open-vocabulary methods are in Table 1."""
    rows: list[tuple[str, str | None, tuple[float, ...]]] = [
        ("MaskTrack", None, (30.3, 51.1, 32.6, 35.5)),
        ("SipMask", None, (33.7, 54.1, 35.8, 40.1)),
        ("CrossVIS", None, (36.3, 56.4, 38.9, 40.7)),
        ("VISOLO", None, (38.6, 56.3, 43.7, 42.5)),
        ("MinVIS", None, (47.4, 69.0, 52.1, 55.7)),
        ("IDOL", None, (49.5, 74.0, 52.9, 58.1)),
        ("GenVIS", None, (50.0, 71.5, 54.6, 59.7)),
        ("DVIS", None, (51.2, 73.8, 57.1, 59.3)),
        ("MinVIS-CLIP", None, (30.6, 51.2, 32.0, 40.7)),
        ("InstFormer", "YouTube-VIS", (51.8, 75.6, 57.2, 60.0)),
        ("Detic-SORT", "L-866", (14.6,)),
        ("Detic-OWTB", "L-866", (17.9,)),
        ("OV2Seg", "L-866", (27.2,)),
    ]
    return [_ytvis(method, training, numbers, _PAPER.format(3)) for method, training, numbers in rows]


def _ablations() -> list[PublishedRow]:
    """Tables 4 to 6; each line of Tables 4 and 5 adds to the one before, or changes it."""
    table_4 = [
        ("MinVIS-CLIP", 2.1, 30.6, 9.0),
        ("+ InstCLIP", 3.3, 48.6, 13.2),
        ("+ LSC (contrastive instance margin loss)", 3.5, 48.5, 15.8),
        ("+ InstCLIP token (for association)", 3.9, 50.2, 16.1),
        ("+ rollout tracker", 4.2, 51.8, 16.7),
    ]
    table_5 = [
        ("N times CLIP", (2.11, 3.58, 1.81)),
        ("+ instance token", (1.09, 0.87, 1.14)),
        ("+ binary guidance", (1.70, 2.13, 1.62)),
        ("+ designed guidance", (3.28, 6.88, 2.52)),
        ("+ register token", (3.87, 7.01, 3.22)),
    ]
    table_6 = [
        ("InstFormer, linear layer in place of RNN", 3.7, 49.1),
        ("InstFormer, MLP in place of RNN", 3.4, 49.7),
    ]
    fourth, fifth, sixth = (_PAPER.format(table) for table in (4, 5, 6))
    rows = [_burst(method, None, (burst,), fourth) for method, burst, _, _ in table_4]
    rows += [_ytvis(method, None, (ytvis,), fourth) for method, _, ytvis, _ in table_4]
    rows += [_uvo(method, None, {"AP": uvo}, fourth, _UVO_UNSETTLED) for method, _, _, uvo in table_4]
    rows += [_burst(method, None, numbers, fifth) for method, numbers in table_5]
    rows += [_burst(method, None, (burst,), sixth) for method, burst, _ in table_6]
    return rows + [_ytvis(method, None, (ytvis,), sixth) for method, _, ytvis in table_6]


def _others() -> list[PublishedRow]:
    """BURST numbers by an evaluator that is not BURST's; not proven that the papers' are from exactly that file."""
    ovformer, clip_vis = "OVFormer, ECCV 2024, README of its code", "CLIP-VIS, arXiv:2403.12455, README of its code"
    rows = [
        ("OVFormer, R-50", 6.8, ovformer),
        ("OVFormer, Swin-B", 7.6, ovformer),
        ("CLIP-VIS, ResNet-50", 5.2, clip_vis),
        ("CLIP-VIS, ConvNeXt-B", 8.3, clip_vis),
    ]
    return [_burst(method, "LVIS", (ap,), source, _BURST_CONVERTED) for method, ap, source in rows]


def _burst(
    method: str, training: str | None, numbers: tuple[float, ...], source: str, variant: str | None = None
) -> PublishedRow:
    names = [_AP + split for split in ("all", "common", "uncommon")]
    return PublishedRow(
        method=method,
        dataset="BURST",
        protocol="burst",
        variant=variant,
        training=training,
        numbers=MappingProxyType(dict(zip(names, numbers, strict=False))),
        source=source,
    )


def _ytvis(method: str, training: str | None, numbers: tuple[float, ...], source: str) -> PublishedRow:
    return PublishedRow(
        method=method,
        dataset="YouTube-VIS",
        protocol="ytvis",
        training=training,
        numbers=MappingProxyType(dict(zip(("AP", "AP50", "AP75", "AR10"), numbers, strict=False))),
        source=source,
    )


def _uvo(
    method: str, training: str | None, numbers: dict[str, float], source: str, variant: str | None = None
) -> PublishedRow:
    return PublishedRow(
        method=method,
        dataset="UVO",
        protocol="uvo",
        variant=variant,
        training=training,
        numbers=MappingProxyType(numbers),
        source=source,
    )


ROWS: tuple[PublishedRow, ...] = (*_table_1(), *_table_2(), *_table_3(), *_ablations(), *_others())
"""All rows, by table."""
