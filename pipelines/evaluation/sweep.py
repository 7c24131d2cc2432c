"""Benchmark sweeps: checkpoints × data sets × ablations; each cell is labelled, exported and scored."""

import csv
import hashlib
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

from openvis_model import __version__
from openvis_model.exemplars import PictureExemplar
from openvis_model.vocabulary import Vocabulary
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results
from pipelines.datasets.annotations import AnyGroundTruth
from pipelines.datasets.benchmark_videos import BenchmarkVideo, category_ids, find_benchmark_videos
from pipelines.evaluation.benchmarks import BENCHMARKS
from pipelines.evaluation.config import AblationConfig, CheckpointConfig, DatasetConfig, SweepConfig
from pipelines.evaluation.predictions import read_predictions
from pipelines.evaluation.report import CellResult, write_report
from pipelines.evaluation.score import Score, score
from pipelines.evaluation.tracking import benchmark_tracker
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.progress import Progress
from pipelines.labelling.run import label_videos
from pipelines.models import load_vocabulary
from pipelines.storage.files import Storage
from pipelines.storage.objects import is_remote


def run_sweep(
    config: SweepConfig, report: Callable[[str, Progress, int], None] = lambda cell, done, total: None
) -> list[CellResult]:
    """Runs all cells without a result, and rewrites the tables and the page after each.

    A cell that fails does not stop the others. A sweep that is run again resumes where it stopped and retries the cells
    that failed. Where a data set has no annotations, as public validation files, a cell ends with the predictions for
    its server.

    Args:
        config: the sweep.
        report: called about once a second with the name of the cell, its progress and its number of videos.

    Returns:
        One result per cell.

    Raises:
        ValueError: a data set, a checkpoint or the output is unusable; raised before anything heavy starts.
    """
    for checkpoint in config.checkpoints:
        if checkpoint.path and is_remote(checkpoint.path):
            raise ValueError(
                f"checkpoints: {checkpoint.name}: {checkpoint.path} is in the cloud; copy it, and give the local folder"
            )
        if checkpoint.path and not (Path(checkpoint.path) / "config.json").is_file():
            raise ValueError(
                f"checkpoints: {checkpoint.name}: {checkpoint.path} is not a checkpoint folder; correct the path"
            )
    datasets = [Dataset.open(dataset) for dataset in config.datasets]
    output = local_output(config.output)
    cells = [
        _Cell(checkpoint=c, dataset=d, ablation=a)
        for c, d, a in product(config.checkpoints, datasets, config.ablations)
    ]
    for cell in cells:
        cell.label_config(config, output)  # refuses what no cell could be labelled with
    results: list[CellResult] = []
    for cell in cells:
        folder = output / "cells" / cell.name
        result = cell.read(config, folder)
        if result is None:
            result = cell.run(config, folder, partial(report, cell.name))
        results.append(result)
        write_report(results, output)
    return results


def local_output(output: str) -> Path:
    """Returns the folder of an output.

    Raises:
        ValueError: it is in the cloud, or cannot be written.
    """
    if is_remote(output):
        raise ValueError(f"output: {output} is in the cloud; give a local folder")
    Storage(output).check_writable()
    return Path(output)


_SHARED = ("batch_size", "segment_frames", "precision", "compile", "model_actors", "model_gpus", "trackers")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set that is ready to use.

    Attributes:
        config: options of the data set.
        ground_truth: the annotations.
        ids: ids of the categories, by name.
        vocabulary: the categories, by name or with exemplars.
        videos: the videos and their files.
        top_k: predictions per video.
    """

    config: DatasetConfig
    ground_truth: AnyGroundTruth
    ids: dict[str, int]
    vocabulary: Vocabulary
    videos: list[BenchmarkVideo]
    top_k: int

    @classmethod
    def open(cls, config: DatasetConfig) -> "Dataset":
        """Opens a data set.

        Raises:
            ValueError: it could not be labelled, or no predictions could be scored by it.
        """
        benchmark = BENCHMARKS[config.protocol]
        try:
            truth = benchmark.read_ground_truth(config.ground_truth, strict=False)
            if not truth.videos:
                raise ValueError(f"{config.ground_truth} has no videos; give a file with some")
            if truth.annotated:
                benchmark.check(truth)
            videos = find_benchmark_videos(truth.videos, config.videos or str(Path(config.ground_truth).parent))
            ids = category_ids(truth.categories)
            vocabulary = Vocabulary.of_dataset(ids)
            if config.exemplars:
                vocabulary = vocabulary.illustrated(load_vocabulary(config.exemplars))
        except ValueError as error:
            raise ValueError(f"datasets: {config.name}: {error}") from error
        top_k = config.top_k or benchmark.top_k
        return cls(config=config, ground_truth=truth, ids=ids, vocabulary=vocabulary, videos=videos, top_k=top_k)

    def pictures(self) -> tuple[str, ...]:
        """Returns what the exemplars are, and hashes of their pictures."""
        shown = self.vocabulary.shown
        return tuple(f"{each} {each.digest if isinstance(each, PictureExemplar) else ''}" for each in shown)

    def write_predictions(self, results: Results, path: Path) -> None:
        """Writes the file for the benchmark's server."""
        tracks = read_predictions(results, self.videos, self.ids, top_k=self.top_k)
        BENCHMARKS[self.config.protocol].write_predictions(path, self.ground_truth, tracks)


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A checkpoint on a data set, tracked in one way."""

    checkpoint: CheckpointConfig
    dataset: Dataset
    ablation: AblationConfig

    @property
    def name(self) -> str:
        return f"{self.checkpoint.name},{self.dataset.config.name},{self.ablation.name}"

    def label_config(self, config: SweepConfig, folder: Path) -> LabelConfig:
        """Returns the options for labelling, which drop no instance before the tracker."""
        tracker = benchmark_tracker(self.ablation.association, self.dataset.videos)
        return LabelConfig(
            input=str(folder / "videos.csv"),
            output=str(folder / "labels"),
            vocabulary=str(folder / "vocabulary.json"),
            checkpoint=self.checkpoint.path,
            tracker=tracker,
            shots="none",
            objectness_floor=tracker.objectness_threshold,
            top=min(self.dataset.top_k, len(self.dataset.ids)),
            retry_failed=True,
            overwrite=True,
            **{name: getattr(config, name) for name in _SHARED},
        )

    def key(self, config: SweepConfig) -> str:
        """Hashes everything that the numbers depend on; the number of processes is not part of it."""
        checkpoint = self.checkpoint.path and (Path(self.checkpoint.path) / "config.json").read_text()
        settings = [
            __version__,
            checkpoint,
            self.dataset.ground_truth.sha256,
            asdict(self.dataset.config),
            benchmark_tracker(self.ablation.association, self.dataset.videos).identity(),
            config.precision,
            self.dataset.pictures(),
        ]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def read(self, config: SweepConfig, folder: Path) -> CellResult | None:
        """Returns the result of an earlier run, unless it failed or had other settings."""
        try:
            stored = json.loads((folder / "result.json").read_text())
            if stored.pop("key") != self.key(config):
                return None
            result = CellResult(**stored)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return result if result.status != "failed" else None

    def run(self, config: SweepConfig, folder: Path, report: Callable[[Progress, int], None]) -> CellResult:
        """Labels, exports and scores; an exception becomes the error of the cell."""
        start, numbers, errors, warnings, about, error = time.monotonic(), {}, {}, [], {}, None
        annotated = self.dataset.ground_truth.annotated
        try:
            about = self._predict(config, folder, report)
            if annotated:
                scored = self._score(folder)
                numbers, errors, warnings = dict(scored.numbers), dict(scored.errors), scored.notes()
                about = {**scored.about, **about}
        except Exception as caught:  # a failing cell never stops the others
            error = (isinstance(caught, ValueError | RuntimeError) and str(caught)) or repr(caught)
            with Storage(str(folder)).write("error.txt") as file:
                file.write(traceback.format_exc().encode())
        result = CellResult(
            checkpoint=self.checkpoint.name,
            dataset=self.dataset.config.name,
            ablation=self.ablation.name,
            protocol=self.dataset.config.protocol,
            top_k=self.dataset.top_k,
            status="failed" if error else "ok" if annotated else "unscored",
            error=error,
            numbers=numbers,
            errors=errors,
            warnings=warnings,
            about=about,
            seconds=time.monotonic() - start,
        )
        if not error:
            with Storage(str(folder)).write("result.json") as file:
                file.write(json.dumps({**asdict(result), "key": self.key(config)}, indent=1).encode())
        return result

    def _predict(self, config: SweepConfig, folder: Path, report: Callable[[Progress, int], None]) -> dict[str, str]:
        """Labels the videos and writes predictions; returns the fingerprints of the labels."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocabulary.json").write_text(self.dataset.vocabulary.to_json(), encoding="utf-8")
        with (folder / "videos.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("video_id", "uri"), *((v.id, v.uri) for v in self.dataset.videos)])
        summary = label_videos(self.label_config(config, folder), report)
        if bad := summary.failures:
            video, reason = next(iter(bad.items()))
            raise RuntimeError(
                f"{len(bad)} of {summary.videos} videos have no labels, so no score: video {video}: {reason}"
            )
        results = Results(Storage(str(folder / "labels")))
        self.dataset.write_predictions(results, folder / "predictions.json")
        names = [name for name in SCHEMAS["videos"].names if name.endswith("_fingerprint")]
        fingerprints: dict[str, str] = results.read("videos").select(names).slice(0, 1).to_pylist()[0]
        return fingerprints

    def _score(self, folder: Path) -> Score:
        protocol, truth = self.dataset.config.protocol, self.dataset.config.ground_truth
        scored = score(protocol, truth, str(folder / "predictions.json"))
        scored.write(str(folder / "metrics.json"))
        return scored
