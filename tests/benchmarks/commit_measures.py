"""What `tests.benchmarks.commits` measures inside of a process, with the code of either commit.

`PYTHONPATH=COMMIT python -P commit_measures.py NAME [ARGUMENT]` prints a JSON list of rows: what, value, and whether
more is better. It uses what both commits have. Networks run on one thread, in turns whose least CPU time counts; their
weights are random, as speed does not depend on them.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

Row = tuple[str, float, bool]

HEIGHT, WIDTH, N, TURNS = 384, 640, 100, 2
PIPED, BATCH = 96, 4
MANY = 300_000


def cpu_ms(run: Callable[[], object], turns: int = TURNS) -> float:
    """Least CPU time of some turns after a first one, milliseconds."""
    taken = []
    for _ in range(turns + 1):
        start = time.process_time()
        run()
        taken.append(1e3 * (time.process_time() - start))
    return min(taken[1:])


def for_inference(model: Any) -> Any:
    """Folds a model as its commit does."""
    if hasattr(model, "fold_for_inference"):
        return model.fold_for_inference()
    from openvis_model.weights.checkpoint import fold

    return fold(model)


def paper_model(backbone: str) -> Any:
    """The paper's model, for inference."""
    from openvis_model.config import paper
    from openvis_model.inst_former import InstFormer

    return for_inference(InstFormer(paper(backbone)).eval())


def frames(batch: int, height: int = HEIGHT, width: int = WIDTH) -> Any:
    """Frames of noise."""
    import torch

    return torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8)


def proposals(backbone: str) -> Iterator[Row]:
    """Mask proposals alone; in bfloat16 as a model actor runs them."""
    import torch

    network = paper_model(backbone).mask_proposal
    for precision, batch in product(("float32", "bfloat16"), (1, 8)):
        if precision == "bfloat16" and batch == 1:
            try:
                from openvis_model.folded.layers import hold_in_bfloat16
            except ImportError:  # before, weights were converted in each batch
                pass
            else:
                hold_in_bfloat16(network)
        given = frames(batch)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            taken = cpu_ms(lambda given=given: network(given)) / batch  # type: ignore[misc]
        yield f"proposals, {backbone}, {precision}, batches of {batch}: ms a frame", taken, False


def inst_clip(_: str) -> Iterator[Row]:
    """InstCLIP with 100 instances a frame."""
    import torch

    classifier = paper_model("resnet50").classifier
    for batch in (1, 8):
        logits, index = 4 * torch.randn(batch, N, HEIGHT // 4, WIDTH // 4), torch.arange(N).expand(batch, -1)
        given = frames(batch)
        with torch.inference_mode():
            taken = cpu_ms(lambda: classifier(given, logits, index)) / batch  # noqa: B023 - called at once
        yield f"InstCLIP, 100 instances, batches of {batch}: ms a frame", taken, False


def miniature(checkpoint: str) -> Iterator[Row]:
    """The whole model of a checkpoint, all instances kept."""
    import torch

    import openvis_model as openvis

    model: Any = openvis.load(checkpoint)
    model = model.fold_for_inference() if hasattr(model, "fold_for_inference") else model
    torch.manual_seed(0)
    for batch, height, width in ((1, 96, 128), (8, 96, 128), (8, 360, 480)):
        given = frames(batch, height, width)
        taken = cpu_ms(lambda: model(given), turns=10) / batch  # noqa: B023 - called at once
        yield f"miniature, {width} × {height}, batches of {batch}: ms a frame", taken, False


def tracker(_: str) -> Iterator[Row]:
    """A step of the tracker with 100 instances, 100 tracks and 1,196 names."""
    import torch

    from openvis_model.options import AssociationConfig, RolloutTrackerConfig, VideoTrackerConfig
    from openvis_model.rollout_tracker import RolloutTracker
    from openvis_model.video_tracker import TrackerState, VideoTracker
    from openvis_model.vocabulary import VocabularyEmbedding
    from tests.benchmarks.__main__ import C, D, instances

    random = torch.Generator().manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(1196, D, generator=random), dim=-1)
    vocabulary = VocabularyEmbedding(tuple(map(str, range(1196))), embeddings, 100.0)
    with torch.inference_mode():
        config = VideoTrackerConfig(association=AssociationConfig(min_similarity=-1.0))
        step = VideoTracker(config, vocabulary, RolloutTracker(RolloutTrackerConfig(), D + C).eval()).step
        video = [instances(random) for _ in range(20)]

        def track() -> None:
            state = TrackerState()
            for number, each in enumerate(video):
                state, _ = step(state, number, each)

        yield "tracker, 100 instances, 1,196 names: ms a frame", cpu_ms(track, turns=5) / len(video), False


def pipeline(_: str) -> Iterator[Row]:
    """Frames per second through Ray Data against the model alone, on the same cores; not CPU time, so be idle."""
    import ray
    import torch

    from openvis_model.config import paper
    from openvis_model.inst_former import InstFormer
    from openvis_model.options import AssociationConfig, VideoTrackerConfig
    from openvis_model.weights.checkpoint import save_checkpoint
    from pipelines.labelling.config import LabelConfig
    from pipelines.labelling.run import label_videos
    from pipelines.shapes.files import write_split
    from pipelines.shapes.scenes import SceneConfig

    came: list[tuple[float, int]] = []

    def watch(done: Any, total: int) -> None:
        if done.frames > (came[-1][1] if came else 0):
            came.append((time.perf_counter(), done.frames))

    with tempfile.TemporaryDirectory() as folder:
        scene = SceneConfig(frames=PIPED, height=HEIGHT, width=WIDTH)
        split = write_split(Path(folder), "valid", 1, 0, scene).path
        names = (split / "vocabulary.txt").read_text().splitlines()
        (split / "few.txt").write_text("\n".join(names[::25]))
        torch.manual_seed(0)
        save_checkpoint(InstFormer(paper()), Path(folder, "checkpoint"))
        video = next((split / "videos").iterdir())
        alone = [alone_rate(video)]
        ray.init(num_cpus=3, object_store_memory=512 * 2**20, include_dashboard=False, log_to_driver=False)
        config = LabelConfig(
            input=str(video),
            output=str(Path(folder, "labels")),
            vocabulary=str(split / "few.txt"),
            checkpoint=str(Path(folder, "checkpoint")),
            batch_size=BATCH,
            tracker=VideoTrackerConfig(association=AssociationConfig(min_similarity=-1.0), objectness_threshold=0.0),
            objectness_floor=0.0,
        )
        label_videos(config, watch)
        ray.shutdown()
        alone.append(alone_rate(video))
    # Two batches may be at work at once: from the end of the first, the second would seem to take no time.
    start, first = next((moment, frames) for moment, frames in came if frames >= 2 * BATCH)
    end, last = came[-1]
    yield (
        "pipeline, the paper's model: × the rate of the model alone",
        (last - first) / (end - start) / mean(alone),
        True,
    )


def alone_rate(video: Path) -> float:
    """Frames per second of the paper's model alone, on all cores, with half of a video's frames in memory."""
    import av
    import torch

    with av.open(str(video)) as file:
        seen = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)][: PIPED // 2]
    model, batches = paper_model("resnet50"), torch.stack(seen).split(BATCH)
    model(batches[0])
    start = time.perf_counter()
    for batch in batches:
        model(batch)
    return len(seen) / (time.perf_counter() - start)


def planning(_: str) -> Iterator[Row]:
    """What is to be done in a large archive, and the memory that takes beyond a small one."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    peaks = []
    for videos in (10, MANY):
        with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(write_archive, folder, videos).result()
            with ProcessPoolExecutor(1, get_context("spawn")) as own:
                taken, peak = own.submit(plan, folder).result()
        peaks.append(peak)
    yield f"planning {MANY:,} videos, a tenth to do: CPU s", taken, False
    yield "  their memory beyond that of ten: MB", (peaks[1] - peaks[0]) / 1e6, False


def write_archive(folder: str, videos: int) -> None:
    """Writes an archive as a commit has it."""
    from tests.benchmarks import planning as its

    its.write_archive(Path(folder), videos)


def plan(folder: str) -> tuple[float, int]:
    """Returns CPU seconds and the peak memory of this process, bytes."""
    from tests.benchmarks import planning as its

    start = time.process_time()
    its.plan(Path(folder))
    status = Path("/proc/self/status").read_text()
    return time.process_time() - start, int(status.split("VmHWM:")[1].split()[0]) * 1024


MEASURES: dict[str, Callable[[str], Iterator[Row]]] = {
    each.__name__: each for each in (proposals, inst_clip, miniature, tracker, pipeline, planning)
}


def main() -> None:
    """Prints the rows."""
    name, argument = (*sys.argv[1:], "")[:2]
    if name in ("proposals", "inst_clip", "miniature", "tracker"):
        os.environ["OMP_NUM_THREADS"] = "1"
    print(json.dumps(list(MEASURES[name](argument))))


if __name__ == "__main__":
    main()
