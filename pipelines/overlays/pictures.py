"""Pictures of search results: the frame where a track is seen best."""

import os
from collections.abc import Sequence
from pathlib import Path

from openvis_model import rle
from pipelines.archive.search import Hit
from pipelines.overlays.contact_sheet import Tile
from pipelines.overlays.drawing import DrawnObject
from pipelines.overlays.render import render_frame
from pipelines.video.download_cache import DownloadCache
from pipelines.video.names import local_path
from pipelines.video.plan import MachineError


def pictures(hits: Sequence[Hit]) -> tuple[list[Tile], dict[str, str]]:
    """Renders each hit in the frame where its track is seen best.

    Returns:
        The pictures, and the reason for each video (by URI) that cannot be read.
    """
    tiles, failures = [], dict[str, str]()
    cache = DownloadCache()
    for hit in hits:
        mask = rle.decode(tuple(hit.mask["size"]), hit.mask["counts"].encode())
        shown = DrawnObject(track_id=hit.track_id, name=hit.category, score=hit.score, mask=mask)
        try:
            uri = local_path(hit.uri)
            with cache.open(uri, cache.version(uri)) as path:
                image = render_frame(Path(path), hit.frame, [shown])
            tiles.append(Tile(image=image, video=os.path.basename(hit.uri.rstrip("/")), time_s=hit.time_s))
        except (ValueError, MachineError) as error:
            failures[hit.uri] = str(error)
    return tiles, failures
