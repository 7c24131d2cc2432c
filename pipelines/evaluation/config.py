"""Options of sweeps and ablations. Imports no torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from openvis_model.options import AssociationConfig
from pipelines.evaluation.benchmarks import BENCHMARKS, Protocol
from pipelines.labelling.config import Precision

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """A data set.

    Attributes:
        name: in the results.
        protocol: whose rules.
        ground_truth: the annotation file.
        videos: folder that the file's paths are relative to; that of the file if not given.
        top_k: predictions per video; the benchmark's usual number if not given.
    """

    name: str
    protocol: Protocol
    ground_truth: str
    videos: str | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.protocol not in BENCHMARKS:
            raise ValueError(
                f"{self.name}: protocol: unknown value {self.protocol!r}; choose one of {', '.join(BENCHMARKS)}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"{self.name}: top_k: expected at least 1, got {self.top_k}")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """A model: its name in the results, and the folder of the checkpoint, or none for the built-in model."""

    name: str
    path: str | None = None


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """A way of tracking: its name in the results, and the association. No match is refused, as in all benchmarks."""

    name: str
    association: AssociationConfig = field(default_factory=AssociationConfig)


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A sweep: labels, exports and scores checkpoints × data sets × ablations.

    Attributes:
        output: local folder of the results.
        datasets: at least one.
        checkpoints: at least one.
        ablations: the paper's tracker if none is given.
        batch_size: frames that go through the model together.
        segment_frames: frames after which a long video may be cut, so that its parts are decoded in parallel; null
            cuts none.
        precision: `bfloat16` runs the model under autocast.
        compile: whether torch compiles the networks first.
        model_actors: processes that run the model.
        model_gpus: GPUs of each model actor; 0 runs on the CPU.
        trackers: processes that track and write.
    """

    output: str
    datasets: list[BenchmarkConfig]
    checkpoints: list[CheckpointConfig]
    ablations: list[AblationConfig] = field(default_factory=lambda: [AblationConfig(name="rollout")])
    batch_size: int = 8
    segment_frames: int | None = 256
    precision: Precision = "float32"
    compile: bool = False
    model_actors: int = 1
    model_gpus: float = 0.0
    trackers: int = 1

    def __post_init__(self) -> None:
        for name in ("datasets", "checkpoints", "ablations"):
            names = [each.name for each in getattr(self, name)]
            if not names:
                raise ValueError(f"{name}: is empty; give at least one")
            for each in names:
                if names.count(each) > 1 or not _NAME.fullmatch(each):
                    raise ValueError(f"{name}: name {each!r} must be unique, of letters, digits, - _ and .")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A training: its name, and the files of options for `jobs.train`, of which later ones win."""

    name: str
    configs: list[str]


@dataclass(frozen=True, kw_only=True)
class RowConfig:
    """A row of a table.

    Attributes:
        table: which, as the paper numbers them.
        name: of the row, unique.
        model: which of the models.
        dataset: which of the data sets.
        association: how instances are linked.
        paper: the paper's number on BURST in percent, if it has the row.
    """

    table: str
    name: str
    model: str
    dataset: str
    association: AssociationConfig = field(default_factory=AssociationConfig)
    paper: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClaimConfig:
    """An ordering: of two rows on one data set the first is better.

    Attributes:
        better: name of a row.
        worse: name of another.
        number: in which number, of `pipelines.metrics.intervals.NAMES`.
    """

    better: str
    worse: str
    number: str = "AP"


@dataclass(frozen=True, kw_only=True)
class AblationsConfig:
    """All ablations.

    Attributes:
        output: folder of models, sweeps and tables.
        models: trained in this order.
        datasets: with the protocol `shapes`.
        rows: of all tables.
        claims: orderings to look at.

    Raises:
        ValueError: names an unknown or repeated name.
    """

    output: str
    models: list[ModelConfig]
    datasets: list[BenchmarkConfig]
    rows: list[RowConfig]
    claims: list[ClaimConfig] = field(default_factory=list)

    def __post_init__(self) -> None:
        from pipelines.metrics.intervals import NAMES  # loads numba

        models, datasets, rows = (
            _unique(field, [each.name for each in getattr(self, field)]) for field in ("models", "datasets", "rows")
        )
        for row in self.rows:
            _known(f"rows: {row.name}: model", row.model, models)
            _known(f"rows: {row.name}: dataset", row.dataset, datasets)
        for dataset in self.datasets:
            if dataset.protocol != "shapes":
                raise ValueError(f"datasets: {dataset.name}: protocol: expected shapes, got {dataset.protocol}")
        of = {row.name: row.dataset for row in self.rows}
        for claim in self.claims:
            _known("claims: better", claim.better, rows)
            _known("claims: worse", claim.worse, rows)
            _known(f"claims: {claim.better}: number", claim.number, NAMES)
            if of[claim.better] != of[claim.worse]:
                raise ValueError(f"claims: {claim.better} and {claim.worse} are rows of different data sets")

    def model_path(self, name: str) -> str:
        """Folder of a training's output."""
        return f"{self.output.rstrip('/')}/models/{name}"


def _unique(field: str, names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{field}: {name!r} is given twice; give each its own name")
    return names


def _known(field: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise ValueError(f"{field}: unknown value {name!r}; choose from {', '.join(names)}")
