"""The masks of videos as rows, those of added and of followed tracks included."""

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results
from pipelines.review.catalogue import Catalogue
from pipelines.review.decided import Row
from pipelines.review.images import Recent
from pipelines.review.search import AbsentError

_COLUMNS = ("video_id", "track_id", "frame", "time_s", "x", "y", "width", "height", "area", "score", "rle")
_BYTES = 256 * 2**20  # of the videos that were looked at last


class VideoMasks:
    """Reads masks, and holds those of the last videos. Methods may be called by several threads."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._recent: Recent[tuple[str, str, int], pa.Table] = Recent(_BYTES, lambda rows: int(rows.nbytes))

    def of(self, video: Row, catalogue: Catalogue) -> pa.Table:
        """Returns the masks of a video, given by its row, by frame and track.

        Raises:
            AbsentError: the video's part was replaced.
        """

        def read() -> pa.Table:
            ids = pa.array([video["video_id"]], pa.string())
            stored = self._results.row_groups("masks", video["part"], ids, _COLUMNS)
            empty = pa.schema([SCHEMAS["masks"].field(name) for name in _COLUMNS]).empty_table()
            added = catalogue.added.filter(pc.is_in(catalogue.added["video_id"], ids))
            masks_of_added = catalogue.additions.masks(added.to_pylist()).select(_COLUMNS)
            return _in_order([empty, *(rows for rows in stored if rows.num_rows), masks_of_added])

        try:
            return self._recent.get((video["part"], video["video_id"], catalogue.added.num_rows), read)
        except FileNotFoundError as error:  # a compaction replaced the part
            raise AbsentError("labels: they were rewritten meanwhile; load the page again") from error


def with_followed(masks: pa.Table, followed: pa.Table | None) -> pa.Table:
    """Adds the masks of what was followed, if anything was."""
    return masks if followed is None else _in_order([masks, followed.select(masks.schema.names)])


def _in_order(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).sort_by([("frame", "ascending"), ("track_id", "ascending")])
