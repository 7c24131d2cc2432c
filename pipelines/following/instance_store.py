"""The instances of a video's frames on disk, to be read forwards and backwards."""

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from openvis_model.instances import Instances
from openvis_model.shots import GRID, ShotState, begins_shot
from pipelines.labelling.instance_bytes import decode_instances
from pipelines.labelling.rows import LabelledRow
from pipelines.labelling.video_writer import extend_shots


class InstanceStore:
    """Batches of one video in a temporary file: about 3 kB for each instance, and 16 bytes in memory for each frame.

    A position is that of a frame among the frames that were added.

    Attributes:
        shots: shots of the video as the `videos` table has them; empty if no cuts are looked for.
        model_s: time that the model took, seconds.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="openvis-instances-")  # noqa: SIM115 - lives as long as this
        self._ends = [0]  # bytes of the file after each batch
        self._starts = [0]  # position of the first frame of each batch, and of the next one
        self._frames = list[Int64[np.ndarray, " B"]]()
        self._times_s = list[Float64[np.ndarray, " B"]]()
        self._cuts = [0]  # positions at which shots begin
        self._state = ShotState()
        self.shots = list[dict[str, Any]]()
        self.model_s = 0.0

    def __len__(self) -> int:
        return self._starts[-1]

    def add(self, batch: LabelledRow) -> None:
        """Adds the next batch of the video.

        Raises:
            OSError: the disk is full.
        """
        thumbnails = np.frombuffer(batch.thumbnails, np.uint8).reshape(-1, GRID, GRID, 3)
        for number, thumbnail in enumerate(thumbnails):
            cut, self._state = begins_shot(self._state, thumbnail)
            extend_shots(self.shots, int(batch.frame[number]), float(batch.time_s[number]), begins=cut)
            if cut:
                self._cuts.append(len(self) + number)
        self._file.write(batch.instances)
        self._ends.append(self._file.tell())
        self._starts.append(len(self) + len(batch.frame))
        self._frames.append(np.array(batch.frame))
        self._times_s.append(np.array(batch.time_s))
        self.model_s += batch.model_s

    def position(self, frame: int) -> int | None:
        """Returns the position of a frame, given by its index in the video; None if it was not added."""
        frames = np.concatenate([np.zeros(0, np.int64), *self._frames])
        at = int(frames.searchsorted(frame))
        return at if at < len(frames) and frames[at] == frame else None

    def shot(self, position: int) -> range:
        """Returns the positions of the shot that a position is in: all of them if no cuts are looked for."""
        number = int(np.searchsorted(self._cuts, position, side="right"))
        return range(self._cuts[number - 1], [*self._cuts, len(self)][number])

    def instances(self, positions: range) -> Iterator[Instances]:
        """Yields the instances of frames at successive positions, in either direction; holds one batch."""
        held, found = -1, list[Instances]()
        for position in positions:
            number = int(np.searchsorted(self._starts, position, side="right")) - 1
            if number != held:
                held, found = number, self._batch(number)
            yield found[position - self._starts[number]]

    def batches(self) -> Iterator[tuple[int, Int64[np.ndarray, " B"], Float64[np.ndarray, " B"], list[Instances]]]:
        """Yields each batch: position of its first frame, indices in the video, times in seconds, and instances."""
        for number, (frames, times_s) in enumerate(zip(self._frames, self._times_s, strict=True)):
            yield self._starts[number], frames, times_s, self._batch(number)

    def _batch(self, number: int) -> list[Instances]:
        start, end = self._ends[number : number + 2]
        self._file.seek(start)
        return decode_instances(self._file.read(end - start))
