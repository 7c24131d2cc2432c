"""The benchmarks. A new one is a name in `Protocol` and an entry in `BENCHMARKS`."""

from collections.abc import Mapping
from typing import Literal

from pipelines.evaluation.benchmark import (
    Benchmark,
    BurstBenchmark,
    NumberTable,
    ShapesBenchmark,
    TrackBenchmark,
)
from pipelines.metrics.rules import LVVIS, OPEN_VOCABULARY, UVO, YTVIS

Protocol = Literal["ytvis", "lvvis", "uvo", "burst", "shapes"]


def _same(names: str) -> dict[str, str]:
    return {name: name for name in names.split()}


_PARTITIONS = {"AP": "AP", "base/AP": "AP base", "novel/AP": "AP novel"}
_SPLITS = ("all", "common", "uncommon")

BENCHMARKS: Mapping[Protocol, Benchmark] = {
    "ytvis": TrackBenchmark(
        title="YouTube-VIS",
        rules=YTVIS,
        top_k=10,  # Mask2Former-VIS and MinVIS
        columns=_same("AP AP50 AP75 APs APm APl AR1 AR10"),
        # The papers that the rows come from use the valid split of 2019; that of 2021 has other videos.
        published_names=r"(youtubevis|ytvis)((20)?19)?(val|valid|validation)?",
    ),
    "lvvis": TrackBenchmark(
        title="LV-VIS",
        rules=LVVIS,
        top_k=50,  # OV2Seg
        columns=_PARTITIONS | _same("AP50 AP75 APs APm APl AR10"),
        pair=("base/AP", "novel/AP"),
        published_names=r"lvvis(val|validation)?",
    ),
    "uvo": TrackBenchmark(
        title="UVO",
        rules=UVO,
        top_k=100,  # its evaluator takes no more
        columns=_same("AP AP50 AP75 AR1 AR10 AR100"),
        published_names=r"uvo(video)?(dense)?(val|validation)?(dense)?",
    ),
    "burst": BurstBenchmark(
        title="BURST",
        top_k=50,  # OV2Seg
        columns={
            **{f"class_guided/HOTA/{split}": f"HOTA {split}" for split in _SPLITS},
            **{f"class_guided/{name}/all": f"{name} all" for name in ("DetA", "AssA")},
            **{f"class_guided/AP/{split}": f"AP {split}" for split in _SPLITS},
            **{f"open_world/OWTA/{split}": f"OWTA {split}" for split in _SPLITS},
        },
        factor=1,  # its table is in percent
        headline=("class_guided/HOTA/all",),
        pair=("class_guided/AP/common", "class_guided/AP/uncommon"),
        table=NumberTable(
            rows=(
                *(f"class_guided/{name}" for name in ("HOTA", "DetA", "AssA", "AP", "mask_HOTA")),
                *(f"open_world/{name}" for name in ("OWTA", "DetRe", "AssA")),
            ),
            columns={split: f"{{}}/{split}" for split in _SPLITS},
        ),
        published_names=r"burst(val|validation)?",
    ),
    "shapes": ShapesBenchmark(
        title="Shapes",
        rules=OPEN_VOCABULARY,
        top_k=10,  # fixed before the first result
        columns=_PARTITIONS
        | {"micro/AP": "micro AP", "top1": "top-1", "matched": "matched"}
        | {"agnostic/AP": "agnostic AP", "agnostic/AR10": "agnostic AR10"}
        | {"oracle/AP": "oracle AP", "permuted/AP": "permuted AP"},
        official=False,
        pair=("base/AP", "novel/AP"),
        controls=frozenset({"oracle/AP", "permuted/AP"}),
        table=NumberTable(
            rows=(
                *("AP", "AP50", "AP75", "AR1", "AR10", "micro/AP", "micro/AP50", "top1", "top1/matched"),
                *("top1/colour", "top1/texture", "top1/shape", "matched"),
                *("agnostic/AP", "agnostic/AP50", "agnostic/AR1", "agnostic/AR10"),
                *("oracle/AP", "permuted/AP", "permuted/top1"),
            ),
            columns={"all": "{}", "base": "base/{}", "novel": "novel/{}", "95 % from": "low/{}", "to": "high/{}"},
        ),
    ),
}
