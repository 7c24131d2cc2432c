import subprocess
import sys
from pathlib import Path

from pipelines.labelling.decoder_process import KINDS, batches, plan
from pipelines.video.isolation import isolated
from pipelines.video.options import Limits, Sampling
from tests.pipelines.video.clips import H264, write_clip


def test_a_decoder_imports_little() -> None:
    """A node has many decoders, and `decoder_memory_gb` limits each."""
    code = "import sys, pipelines.labelling.decoder_process; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"ray", "pyarrow", "boto3", "torch"} & set(loaded)


def test_segments_are_planned_and_decoded_in_another_process(tmp_path: Path) -> None:
    path = str(write_clip(tmp_path / "clip.mp4", options=H264))
    with isolated(Limits()) as process:
        (video,) = process.run(plan, path, Sampling(stride=4), 16, kinds=KINDS)
        decoded = [
            list(process.run(batches, path, video.info, segment, (64, 96), 3, kinds=KINDS))
            for segment in video.segments
        ]
    frames = [frame for segment in decoded for batch in segment for frame in batch.frame.tolist()]
    assert frames == list(range(0, 48, 4))
    assert {batch.frames.shape[1:] for segment in decoded for batch in segment} == {(64, 96, 3)}
