"""Free text over the tracks of an archive, by their embeddings; no video is read but for pictures of what was found."""

import heapq
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from openvis_model import rle
from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import Vocabulary
from openvis_model.weights import fingerprint
from pipelines.download_cache import DownloadCache
from pipelines.drawing import DrawnObject
from pipelines.models import load_model
from pipelines.part_map import counting_parts, map_parts
from pipelines.part_search import Best
from pipelines.relabel import check_model
from pipelines.render import Tile, render_frame
from pipelines.results import Results
from pipelines.storage import Storage


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """A search.

    Attributes:
        labels: output of a labelling run, local or s3://.
        text: what to look for, such as "red striped star"; synonyms separated by commas.
        checkpoint: the one that the videos were labelled with, local or s3://; the built-in model if none is given.
        top: tracks listed, the most similar first.
        sheet: also write a PNG with a picture of each track; reads their videos.
    """

    labels: str
    text: str
    checkpoint: str | None = None
    top: int = 10
    sheet: str | None = None

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top: expected at least 1, got {self.top}")
        if self.sheet is not None and not self.sheet.lower().endswith(".png"):
            raise ValueError(f"sheet: {self.sheet} must end with .png")
        if self.sheet is not None and "://" in self.sheet:
            raise ValueError(f"sheet: {self.sheet} is no local file; give one, and upload it")


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A track that was found.

    Attributes:
        similarity: cosine of its embedding and the text's.
        video_id: the video.
        uri: where the video is.
        track_id: in the video.
        category: what it was labelled as.
        score: with which.
        objectness: mean over its frames.
        first_frame: index of the first frame in which it was seen.
        last_frame: index of the last one.
        frame: in which it is seen best: large and surely.
        time_s: of this frame, seconds from the first.
        mask: in this frame, as in the `masks` table.
    """

    similarity: float
    video_id: str
    uri: str
    track_id: int
    category: str
    score: float
    objectness: float
    first_frame: int
    last_frame: int
    frame: int
    time_s: float
    mask: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search gave.

    Attributes:
        hits: most similar first.
        tracks: number of tracks that were compared.
        failures: part and reason of those that could not be read.
    """

    hits: tuple[Hit, ...]
    tracks: int
    failures: dict[str, str]


def search(config: SearchConfig) -> Found:
    """Finds the tracks whose embeddings are most similar to a text's.

    Raises:
        ValueError: for labels or a checkpoint that cannot be used or do not go together, and for a text that CLIP's
            text tower cannot read.
    """
    vocabulary = Vocabulary((tuple(config.text.split(",")),))
    results = Results(Storage(config.labels))
    parts = counting_parts(results)
    if not parts:
        raise ValueError(f"labels: {config.labels} has no labels; give the output of a labelling run")
    model = load_model(config.checkpoint)
    check_model(results, fingerprint(model))
    text = embed_vocabulary(vocabulary, model.text_encoder).embeddings[0].numpy()
    rows = list(map_parts(parts, Best(results=results, text=text, top=config.top)))
    best = heapq.nlargest(
        config.top, (hit for row in rows if not row["error"] for hit in row["hits"]), key=lambda hit: hit["similarity"]
    )
    return Found(
        hits=tuple(_seen_best(results, hit) for hit in best),
        tracks=sum(row["tracks"] for row in rows if not row["error"]),
        failures={row["part"]: row["error"] for row in rows if row["error"]},
    )


def _seen_best(results: Results, hit: dict[str, Any]) -> Hit:
    masks = results.read("masks", video_id=hit["video_id"]).filter(pc.field("track_id") == hit["track_id"])
    best = masks.slice(int(np.argmax(pc.multiply(masks["score"], masks["area"]).to_numpy())), 1).to_pylist()[0]
    uri = results.read("videos", video_id=hit["video_id"])["uri"][0].as_py()
    return Hit(**hit, uri=uri, frame=best["frame"], time_s=best["time_s"], mask=best["rle"])


def pictures(hits: Sequence[Hit]) -> tuple[list[Tile], dict[str, str]]:
    """A picture of each track, where it is seen best, and video and reason of those whose video cannot be read."""
    tiles, failures = [], dict[str, str]()
    cache = DownloadCache()
    for hit in hits:
        mask = rle.decode(tuple(hit.mask["size"]), hit.mask["counts"].encode())
        shown = DrawnObject(track_id=hit.track_id, name=hit.category, score=hit.score, mask=mask)
        try:
            with cache.open(hit.uri, cache.version(hit.uri)) as path:
                image = render_frame(Path(path), hit.frame, [shown])
            tiles.append(Tile(image=image, video=os.path.basename(hit.uri.rstrip("/")), time_s=hit.time_s))
        except ValueError as error:
            failures[hit.uri] = str(error)
    return tiles, failures
