"""Checkpoints on their way to the output, while training goes on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from pipelines.storage.outage import left_while_away
from pipelines.training.output import TrainingOutput, checkpoint_path


class CheckpointUpload:
    """Stores checkpoints in a thread, one after the other; a checkpoint counts once it is whole.

    Args:
        output: the output.
        keep: number of recent checkpoints to keep.

    Attributes:
        stored: step of the last checkpoint that was stored; None before the first.
    """

    def __init__(self, output: TrainingOutput, keep: int) -> None:
        self.output = output
        self.keep = keep
        self.stored: int | None = None
        self._thread = ThreadPoolExecutor(1)
        self._running: Future[None] | None = None

    def begin(self, step: int, write: Callable[[Path], None]) -> None:
        """Writes a checkpoint to local disk, once the one before it is stored, and begins to store it.

        Args:
            step: that of the checkpoint.
            write: writes its files into a folder; done when this method returns.

        Raises:
            OSError: the one before could not be stored, as `check`.
        """
        self.finish()
        folder = TemporaryDirectory(prefix="openvis-")
        try:
            write(Path(folder.name))
        except BaseException:
            folder.cleanup()
            raise
        self._running = self._thread.submit(self._store, step, folder)

    def check(self) -> None:
        """Raises the error of the last checkpoint, if it could not be stored.

        Raises:
            OSError: the storage was away for longer than the output's `stall_s`, or refuses.
            RuntimeError: another run took over the output.
        """
        if self._running and self._running.done():
            self.finish()

    def finish(self) -> None:
        """Waits until the last checkpoint is stored; raises as `check`."""
        running, self._running = self._running, None
        if running:
            running.result()

    def close(self) -> None:
        """Waits for the last checkpoint, even if training failed meanwhile."""
        self._thread.shutdown()

    def _store(self, step: int, folder: "TemporaryDirectory[str]") -> None:
        with folder as name:
            self.output.outlast(lambda: self.output.files.put_folder(Path(name), checkpoint_path(step)))
        self.stored = step
        with left_while_away():
            self.output.check_holder()
            self.output.keep_last(self.keep)
