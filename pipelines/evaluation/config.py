"""Options of sweeps and ablations. Imports no torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from openvis_model.options import AssociationConfig
from pipelines.evaluation.benchmarks import BENCHMARKS, Protocol
from pipelines.labelling.config import Precision
from pipelines.processes import Processes

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """A data set.

    Attributes:
        name: name of the data set in the results.
        protocol: benchmark whose rules apply.
        ground_truth: annotation file.
        videos: folder that the file's video paths are relative to; null is the folder of the file.
        top_k: predictions per video; null is the benchmark's usual number.
        exemplars: vocabulary file whose categories have pictures, which replace the words of the data set's categories
            of the same names.
    """

    name: str
    protocol: Protocol
    ground_truth: str
    videos: str | None = None
    top_k: int | None = None
    exemplars: str | None = None

    def __post_init__(self) -> None:
        if self.protocol not in BENCHMARKS:
            raise ValueError(
                f"{self.name}: protocol: unknown value {self.protocol!r}; choose one of {', '.join(BENCHMARKS)}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"{self.name}: top_k: expected at least 1, got {self.top_k}")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """A model.

    Attributes:
        name: name of the model in the results.
        path: checkpoint folder; null is the built-in model.
    """

    name: str
    path: str | None = None


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """A way of tracking. No match is refused, as in all benchmarks.

    Attributes:
        name: name of the ablation in the results.
        association: how instances are linked.
    """

    name: str
    association: AssociationConfig = field(default_factory=AssociationConfig)


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A sweep: labels, exports and scores checkpoints × data sets × ablations.

    Attributes:
        output: local folder of the results.
        datasets: data sets, at least one.
        checkpoints: models, at least one.
        ablations: ways of tracking; the paper's tracker by default.
        batch_size: frames that go through the model together.
        segment_frames: frames after which a long video may be cut, so that its segments are decoded in parallel; null
            never cuts.
        precision: `bfloat16` runs the model under autocast.
        compile: whether torch compiles the networks first.
        model_actors: processes that run the model: a number, or a range such as `1-8`.
        model_gpus: GPUs of each model actor; 0 runs on the CPU.
        trackers: processes that track and write.
    """

    output: str
    datasets: list[DatasetConfig]
    checkpoints: list[CheckpointConfig]
    ablations: list[AblationConfig] = field(default_factory=lambda: [AblationConfig(name="rollout")])
    batch_size: int = 8
    segment_frames: int | None = 256
    precision: Precision = "float32"
    compile: bool = False
    model_actors: int | str = 1
    model_gpus: float = 0.0
    trackers: int = 1

    def __post_init__(self) -> None:
        for name in ("datasets", "checkpoints", "ablations"):
            names = [entry.name for entry in getattr(self, name)]
            if not names:
                raise ValueError(f"{name}: is empty; give at least one")
            for given in names:
                if names.count(given) > 1 or not _NAME.fullmatch(given):
                    raise ValueError(f"{name}: name {given!r} must be unique, of letters, digits, - _ and .")
        Processes.parse("model_actors", self.model_actors)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A training.

    Attributes:
        name: name of the trained model.
        configs: YAML files of options for `jobs.train`; later ones win.
        start: name of a model before it that stage 2 starts from; null leaves the start to the files.
    """

    name: str
    configs: list[str]
    start: str | None = None


@dataclass(frozen=True, kw_only=True)
class RowConfig:
    """A row of a table.

    Attributes:
        table: number of the table in the paper.
        name: name of the row, unique.
        model: name of one of the models.
        dataset: name of one of the data sets.
        association: how instances are linked.
        paper: the paper's number on BURST in percent; null if the paper lacks the row.
    """

    table: str
    name: str
    model: str
    dataset: str
    association: AssociationConfig = field(default_factory=AssociationConfig)
    paper: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClaimConfig:
    """An ordering: one row is better than another on the same data set.

    Attributes:
        better: name of the row that should be better.
        worse: name of the row that should be worse.
        number: number that is compared, such as `AP` or `agnostic/AP`.
    """

    better: str
    worse: str
    number: str = "AP"


@dataclass(frozen=True, kw_only=True)
class AblationsConfig:
    """All ablations.

    Attributes:
        output: folder of models, sweeps and tables.
        models: trainings, in this order.
        seeds: each model is trained once with each seed; rows are means over them.
        datasets: data sets, with the protocol `shapes`.
        rows: rows of all tables.
        claims: orderings to check.

    Raises:
        ValueError: a name is unknown or repeated.
    """

    output: str
    models: list[ModelConfig]
    datasets: list[DatasetConfig]
    rows: list[RowConfig]
    claims: list[ClaimConfig] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        from pipelines.metrics.intervals import NAMES  # loads numba

        models, datasets, rows = (
            _unique(field, [entry.name for entry in getattr(self, field)]) for field in ("models", "datasets", "rows")
        )
        for kind, names in (("models", models), ("datasets", datasets)):  # parts of the names of folders
            for name in names:
                if not _NAME.fullmatch(name):
                    raise ValueError(f"{kind}: name {name!r} must be of letters, digits, - _ and .")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds: expected different numbers from 0, got {self.seeds}")
        for position, model in enumerate(self.models):
            if model.start is not None:
                _known(f"models: {model.name}: start", model.start, models[:position])
        for row in self.rows:
            _known(f"rows: {row.name}: model", row.model, models)
            _known(f"rows: {row.name}: dataset", row.dataset, datasets)
        for dataset in self.datasets:
            if dataset.protocol != "shapes":
                raise ValueError(f"datasets: {dataset.name}: protocol: expected shapes, got {dataset.protocol}")
        dataset_of = {row.name: row.dataset for row in self.rows}
        for claim in self.claims:
            _known("claims: better", claim.better, rows)
            _known("claims: worse", claim.worse, rows)
            _known(f"claims: {claim.better}: number", claim.number, NAMES)
            if dataset_of[claim.better] != dataset_of[claim.worse]:
                raise ValueError(f"claims: {claim.better} and {claim.worse} are rows of different data sets")

    def training(self, name: str, seed: int) -> str:
        """Returns the name of a training: of its folder, and in sweeps."""
        return f"{name}-{seed}"

    def model_path(self, name: str, seed: int) -> str:
        """Returns the folder of a training's output."""
        return f"{self.output.rstrip('/')}/models/{self.training(name, seed)}"

    def options(self, model: ModelConfig, seed: int) -> list[str]:
        """Returns the options of a training for `jobs.train`."""
        files = [option for file in model.configs for option in ("--config", file)]
        start = (
            [] if model.start is None else ["--stage_2.start.checkpoint", f"{self.model_path(model.start, seed)}/model"]
        )
        return [*files, *start, "--seed", str(seed), "--output", self.model_path(model.name, seed)]


def _unique(field: str, names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{field}: {name!r} is given twice; give each its own name")
    return names


def _known(field: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise ValueError(f"{field}: unknown value {name!r}; choose from {', '.join(names)}")
