import subprocess
import sys


def test_what_decodes_and_hands_on_needs_no_torch() -> None:
    """A node has many such workers; torch would add seconds to the start and half a gigabyte to each."""
    modules = "pipelines.labelling.batch, pipelines.labelling.decode_stage, pipelines.labelling.track_sink"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
