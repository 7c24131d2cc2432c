"""Runs a benchmark from its config to its results."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import Vocabulary
from pipelines.benchmark.advice import Advice, advise
from pipelines.benchmark.config import BATCH_SIZES, BenchmarkConfig
from pipelines.benchmark.machine import Machine, measure_machine
from pipelines.benchmark.stages import DECODED, Stage, Stages, best_batch_size
from pipelines.models import load_model
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from pipelines.video.index import plan_video
from pipelines.video.plan import VideoError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class BenchmarkResult:
    """What a benchmark found.

    Attributes:
        machine: the device, measured.
        device: `cpu` or `cuda`.
        precision: of the model's products.
        size: height and width of the video, pixels.
        working_size: height and width at which the networks see it, pixels.
        batch_size: the batch size of `stages`.
        batches: time of the model per frame for each batch size that was tried, seconds.
        stages: the stages of labelling.
        model_s: time of the whole model per frame, seconds.
        advice: what this means for a run.
    """

    machine: Machine
    device: str
    precision: str
    size: tuple[int, int]
    working_size: tuple[int, int]
    batch_size: int
    batches: dict[int, float]
    stages: list[Stage]
    model_s: float
    advice: Advice


def run_benchmark(config: BenchmarkConfig, progress: Callable[[str], None]) -> BenchmarkResult:
    """Measures this machine and the stages of labelling a video on it.

    Args:
        config: the benchmark.
        progress: called with the name of what is measured next.

    Raises:
        ValueError: for a checkpoint or a video that cannot be read, or a GPU that is not there.
    """
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: this machine has no GPU that torch can use; give cpu, or install a CUDA build")
    model = load_model(config.checkpoint).to(device)
    with tempfile.TemporaryDirectory(prefix="openvis-benchmark-") as folder:
        path = config.video or draw_video(Path(folder))
        try:
            plan = plan_video(path, config.sampling(), None)
        except VideoError as error:
            raise ValueError(f"video: {path}: {error}") from error
        progress("the machine")
        dtype = _DTYPES[config.precision]
        before = measure_machine(device, dtype, config.seconds)
        stages = Stages(
            model,
            path,
            plan,
            precision=dtype,
            objectness_floor=config.objectness_floor,
            seconds=config.seconds,
        )
        progress("decoding")
        decode = stages.decode()
        progress("the model")
        sizes = BATCH_SIZES if config.batch_size is None else (config.batch_size,)
        batch_size, batches = best_batch_size(stages, sizes)
        networks = stages.networks(batch_size)
        progress("tracking")
        track = stages.track(embed_vocabulary(Vocabulary((("star",),)), model.text_encoder, reference=True))
        progress("the machine again")
        machine = before.at_best(measure_machine(device, dtype, config.seconds))
    frames = sum(len(segment.frames) for segment in plan.segments)
    advice = advise(
        model_s=batches[batch_size],
        decode_s=decode.frame_s,
        track_s=track.frame_s,
        options=config.label_options(batch_size),
        cores=machine.cores,
        threads=machine.threads,
        gpus=torch.cuda.device_count() if device == "cuda" else 0,
        frames_per_video_s=frames / plan.info.duration_s if plan.info.duration_s else 1.0,
        core_price=config.core_price,
        gpu_price=config.gpu_price,
    )
    return BenchmarkResult(
        machine=machine,
        device=device,
        precision=config.precision,
        size=stages.size,
        working_size=stages.working_size,
        batch_size=batch_size,
        batches=batches,
        stages=[decode, *networks, track],
        model_s=batches[batch_size],
        advice=advice,
    )


def draw_video(folder: Path) -> str:
    """Draws a video of Shapes and returns its path."""
    scene = SceneConfig(frames=DECODED, height=480, width=640)
    return str(next((write_split(folder, "valid", 1, 0, scene).path / "videos").iterdir()))
