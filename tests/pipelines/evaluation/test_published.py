import pytest

from pipelines.evaluation.benchmarks import Protocol
from pipelines.evaluation.published import ROWS, PublishedRow, published


def row(dataset: str, protocol: Protocol, method: str, table: int) -> PublishedRow:
    rows = published(dataset, protocol)
    (found,) = [r for r in rows if r.method == method and r.source.endswith(f"Table {table}") and not r.variant]
    return found


def test_numbers_of_the_paper() -> None:
    full = row("burst", "burst", "InstFormer", 1)
    names = [f"class_guided/AP/{split}" for split in ("all", "common", "uncommon")]
    assert [full.numbers[name] for name in names] == [4.2, 7.4, 3.5]
    assert full.training == "CY-103"
    assert row("lvvis", "lvvis", "OV2Seg", 1).numbers == {"novel/AP": 11.9}
    assert row("uvo", "uvo", "InstFormer", 2).numbers == {"AP": 7.2}
    assert row("ytvis", "ytvis", "DVIS", 3).numbers == {"AP": 51.2, "AP50": 73.8, "AP75": 57.1, "AR10": 59.3}
    assert row("ytvis", "ytvis", "Detic-SORT", 3).numbers == {"AP": 14.6}
    tokens = row("burst", "burst", "+ binary guidance", 5)
    assert [tokens.printed[name] for name in names] == ["1.70", "2.13", "1.62"]
    assert row("ytvis", "ytvis", "InstFormer, MLP in place of RNN", 6).numbers == {"AP": 49.7}


def test_tables_agree_with_each_other_and_with_what_the_text_says() -> None:
    ap = "class_guided/AP/"
    full, seg = row("burst", "burst", "InstFormer", 1), row("burst", "burst", "OV2Seg", 1)
    assert full.numbers[ap + "uncommon"] / seg.numbers[ap + "uncommon"] == pytest.approx(1.45, abs=0.01)  # "45%"
    assert row("burst", "burst", "+ rollout tracker", 4).numbers == {ap + "all": full.numbers[ap + "all"]}
    youtube, baseline = row("ytvis", "ytvis", "InstFormer", 3), row("ytvis", "ytvis", "MinVIS-CLIP", 3)
    assert youtube.numbers["AP"] - baseline.numbers["AP"] == pytest.approx(21.2)  # "by 21.2 AP"
    assert row("ytvis", "ytvis", "+ rollout tracker", 4).numbers["AP"] == youtube.numbers["AP"]
    first, second = (row("burst", "burst", name, 4).numbers[ap + "all"] for name in ("MinVIS-CLIP", "+ InstCLIP"))
    assert second / first == pytest.approx(1.57, abs=0.01)  # "57% improvement"


def test_burst_by_another_evaluator_is_a_variant() -> None:
    variants = [r for r in published("burst", "burst") if r.variant]
    numbers = sorted(number for r in variants for number in r.numbers.values())
    assert numbers == [5.2, 6.8, 7.6, 8.3]
    assert {r.method.partition(",")[0] for r in variants} == {"OVFormer", "CLIP-VIS"}


def test_ap_on_uvo_that_is_not_explained_is_a_variant() -> None:
    by_rules = [r for r in published("uvo", "uvo") if not r.variant]
    assert {r.method: r.numbers for r in by_rules} == {
        "TAM": {"AP": 1.7},
        "SAM-PT": {"AP": 6.7},
        "InstFormer": {"AP": 7.2},
    }
    variants = [r for r in published("uvo", "uvo") if r.variant]
    assert {"AP": 16.7, "AR100": 24.7} in [r.numbers for r in variants]


def test_variants_come_last() -> None:
    marks = [bool(r.variant) for r in published("burst", "burst")]
    assert marks == sorted(marks)
    assert len(set(marks)) == 2


@pytest.mark.parametrize(
    ("dataset", "protocol"),
    [
        ("YouTube-VIS 2019", "ytvis"),
        ("ytvis19_val", "ytvis"),
        ("LV-VIS val", "lvvis"),
        ("uvo_dense_val", "uvo"),
        ("BURST-validation", "burst"),
    ],
)
def test_spellings_of_a_data_set(dataset: str, protocol: Protocol) -> None:
    assert published(dataset, protocol)


@pytest.mark.parametrize(
    ("dataset", "protocol"),
    [
        ("ytvis21_val", "ytvis"),
        ("ovis", "ytvis"),
        ("shapes", "lvvis"),
        ("burst-test", "burst"),
        ("uvo-sparse", "uvo"),
        ("lvvis", "ytvis"),
        ("burst", "ytvis"),
        ("my-lvvis", "lvvis"),
    ],
)
def test_nothing_is_known_to_compare_with(dataset: str, protocol: Protocol) -> None:
    assert published(dataset, protocol) == ()


def test_rows_are_percent_with_a_source_and_only_once() -> None:
    assert all(0 < number < 100 for r in ROWS for number in r.numbers.values())
    assert all(r.numbers and r.source for r in ROWS)
    keys = [(r.method, r.dataset, r.training, r.source, r.variant) for r in ROWS]
    assert len(set(keys)) == len(keys)
    counts = [sum(r.source == f"OpenVIS, AAAI-25, Table {table}" for r in ROWS) for table in range(1, 7)]
    assert counts == [7 + 4, 5 + 3, 13, 3 * 5, 5, 2 * 2]


def test_a_row_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        ROWS[0].printed["AP"] = "99.0"  # type: ignore[index]
