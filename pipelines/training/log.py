"""Metrics of a training, step by step: JSON lines and TensorBoard."""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter  # type: ignore[import-untyped]

from pipelines.storage.outage import left_while_away
from pipelines.training.output import METRICS, TrainingOutput

TENSORBOARD = "tensorboard"

_LOCAL_EVERY_S, _REMOTE_EVERY_S = 2.0, 30.0  # between writes of the whole file


class TrainingLog:
    """The metrics of a training, a line per step. The output always holds whole files, up to half a minute old.

    Args:
        output: the output.
        text: lines up to the step from which training resumes.
        step: that step; later lines in the output are removed.

    Raises:
        ValueError: the number of lines differs from `step`.
    """

    def __init__(self, output: TrainingOutput, text: str, step: int) -> None:
        self.output = output
        self.lines = text.splitlines()
        if len(self.lines) != step:
            raise ValueError(
                f"{METRICS}: expected {step} lines in the checkpoint of step {step}, got {len(self.lines)}"
            )
        self.every_s = _LOCAL_EVERY_S if output.files.is_local else _REMOTE_EVERY_S
        self.folder = Path(tempfile.mkdtemp(prefix="openvis-"))
        self.writer = SummaryWriter(str(self.folder), purge_step=step + 1)
        self._publish_now_or_later()

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds the line of the next step."""
        self.lines.append(json.dumps({"step": step, **metrics}))
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        if time.monotonic() - self.published > self.every_s:
            self._publish_now_or_later()

    def text(self) -> str:
        """Returns all lines so far."""
        return "".join(f"{line}\n" for line in self.lines)

    def publish(self) -> None:
        """Writes all lines to the output.

        Raises:
            OSError: the output cannot be written to.
            RuntimeError: another run took over the output.
        """
        self.output.check_holder()
        self.output.write(METRICS, self.text().encode())
        self.writer.flush()
        for file in self.folder.iterdir():
            self.output.files.put(file, f"{TENSORBOARD}/{file.name}")

    def close(self) -> None:
        """Writes all lines to the output, unless it is away, and closes the log."""
        self.writer.close()  # waits for queued events, unlike flush
        self._publish_now_or_later()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _publish_now_or_later(self) -> None:
        with left_while_away():
            self.publish()
        self.published = time.monotonic()
