"""Searches the tracks of an archive by text or picture, from their embeddings; no video is read."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch.nn.functional as F
from jaxtyping import Float32

from openvis_model.exemplars import parse_exemplars
from openvis_model.text_embedding import embed_exemplars, embed_vocabulary
from openvis_model.vocabulary import Vocabulary
from openvis_model.weights.light_model import LightModel
from pipelines.archive.config import SearchConfig
from pipelines.archive.exemplars import read_tracks
from pipelines.archive.part_map import map_parts
from pipelines.archive.search_part import Best
from pipelines.archive.tables import Results, open_labels
from pipelines.models import load_light_model, load_picture_encoder, read_pictures

_SEEN = ("video_id", "track_id", "frame", "time_s", "area", "score", "rle")


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A track that matches the text or the picture.

    Attributes:
        similarity: cosine between the embeddings of the track and of what is looked for.
        video_id: id of the video.
        uri: local path or URI of the video.
        track_id: id of the track within the video.
        category: category that the track was labelled with.
        score: score of that category.
        objectness: mean over its frames.
        first_frame: index of the first frame in which it is visible.
        last_frame: index of the last such frame.
        frame: index of the frame that shows it best: largest score × area.
        time_s: time of that frame, seconds since the video's first frame.
        mask: its mask in that frame, as in the `masks` table.
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
class SearchResult:
    """The result of a search.

    Attributes:
        hits: most similar first.
        tracks: number of tracks compared.
        left_out: ids of the videos that were labelled with a model other than the checkpoint's.
        failures: reasons of the parts and videos that could not be read, by part or video.
    """

    hits: tuple[Hit, ...]
    tracks: int
    left_out: tuple[str, ...]
    failures: dict[str, str]


def search(config: SearchConfig) -> SearchResult:
    """Finds the tracks whose embeddings are most similar to that of a text or of a picture.

    Raises:
        ValueError: labels or checkpoint cannot be used or do not fit together, CLIP's text tower cannot read the text,
            or a picture cannot be used.
        RuntimeError: Ray lost its processes.
    """
    looked_for = _looked_for(config)
    results = open_labels(config.labels)
    model = load_light_model(config.checkpoint)
    left_out = results.of_other_models(model.fingerprint)
    embedding = _embedding(read_tracks(looked_for, model.fingerprint, config.labels), model, config.checkpoint)
    wanted = None
    if len(left_out):
        ids = pa.concat_arrays(list(results.counting().values()))
        wanted = ids.filter(pc.invert(pc.is_in(ids, left_out)))
    rows = list(map_parts(results, Best(results=results, wanted=embedding, top=config.top), ("tracks",), wanted))
    best = heapq.nlargest(
        config.top, (hit for row in rows if not row["error"] for hit in row["hits"]), key=lambda hit: hit["similarity"]
    )
    hits = _seen_best(results, best)
    shown = {(hit.video_id, hit.track_id) for hit in hits}
    gone = [row["video_id"] for row in best if (row["video_id"], row["track_id"]) not in shown]
    return SearchResult(
        hits=tuple(hits),
        tracks=sum(row["tracks"] for row in rows if not row["error"]),
        left_out=tuple(left_out.to_pylist()),
        failures={row["part"]: row["error"] for row in rows if row["error"]}
        | dict.fromkeys(gone, "was labelled again meanwhile; search again"),
    )


def _looked_for(config: SearchConfig) -> Vocabulary:
    """Returns what is looked for as a vocabulary of one category, whose pictures have been read."""
    if config.image is not None:
        exemplars = parse_exemplars(config.image, "image")
        return read_pictures(Vocabulary((("image",),), exemplars=(exemplars,)))
    try:
        return Vocabulary.handwritten([str(config.text).split(",")])
    except ValueError:
        raise ValueError(f"text: {config.text!r} has an empty word; give one, or several separated by commas") from None


def _embedding(vocabulary: Vocabulary, model: LightModel, checkpoint: str | None) -> Float32[np.ndarray, " D"]:
    """Returns the unit-norm embedding of a vocabulary's only category; that of exemplars is not calibrated."""
    if vocabulary.shown:
        embeddings = embed_exemplars(vocabulary.shown, cache(partial(load_picture_encoder, checkpoint)))
    else:
        embeddings = embed_vocabulary(vocabulary, model.text_encoder).embeddings
    embedding: Float32[np.ndarray, " D"] = F.normalize(embeddings.mean(0), dim=-1).numpy()
    return embedding


def _seen_best(results: Results, tracks: Sequence[Mapping[str, Any]]) -> list[Hit]:
    """Adds the frame that shows each track best; leaves out tracks that no longer exist."""
    ids = list({row["video_id"] for row in tracks})
    masks, videos = (
        {key(row): row for rows in results.scan(table, columns, video_ids=ids, each=each) for row in rows}
        for table, columns, each, key in (
            ("masks", _SEEN, _best_masks, lambda row: (row["video_id"], row["track_id"])),
            ("videos", ("video_id", "uri"), pa.Table.to_pylist, lambda row: row["video_id"]),
        )
    )
    hits = []
    for row in tracks:
        if mask := masks.get((row["video_id"], row["track_id"])):
            where = {"frame": mask["frame"], "time_s": mask["time_s"], "mask": mask["rle"]}
            hits.append(Hit(**row, uri=videos[row["video_id"]]["uri"], **where))
    return hits


def _best_masks(masks: pa.Table) -> list[dict[str, Any]]:
    """Returns each track's mask with the largest score × area, the first of equal ones."""
    seen = pc.multiply(masks["score"], pc.cast(masks["area"], pa.float32()))
    tracks = masks.select(["video_id", "track_id"]).append_column("seen", seen)
    tracks = tracks.append_column("row", pa.array(np.arange(masks.num_rows)))
    tracks = tracks.sort_by([("seen", "descending"), ("row", "ascending")])
    best = tracks.group_by(["video_id", "track_id"], use_threads=False).aggregate([("row", "first")])
    rows: list[dict[str, Any]] = masks.take(best["row_first"]).to_pylist()
    return rows
