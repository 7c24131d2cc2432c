"""Reads the tracks that a vocabulary has as exemplars, from the archives that they are in."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from openvis_model.exemplars import Exemplar, TrackExemplar
from openvis_model.vocabulary import Vocabulary
from pipelines.archive.additions import FIRST_ID, Additions
from pipelines.archive.formats.video_labels import Row
from pipelines.archive.reviews import SAME_TRACKS, is_stale
from pipelines.archive.schemas import SCHEMAS
from pipelines.archive.tables import Results, open_labels, track_embeddings

_Embedding = Float32[np.ndarray, " D"]
_COLUMNS = ("video_id", "track_id", "embedding")


def read_tracks(vocabulary: Vocabulary, model_fingerprint: str, labels: str | None = None) -> Vocabulary:
    """Returns a vocabulary whose tracks have been read; pictures are left as they are.

    Args:
        vocabulary: any.
        model_fingerprint: of the model that the vocabulary is embedded with.
        labels: the archive of tracks that name none, local or in the cloud; None if there is none.

    Raises:
        ValueError: an archive, a video or a track does not exist, or the video was labelled with another model; names
            the place, the exemplar and the remedy.
    """
    tracks = sorted(
        (each for each in vocabulary.shown if isinstance(each, TrackExemplar)), key=lambda each: each.archive or ""
    )
    embeddings: dict[TrackExemplar, _Embedding] = {}
    for _, group in groupby(tracks, key=lambda each: each.archive):
        embeddings |= _read(list(group), model_fingerprint, labels)

    def with_embedding(exemplar: Exemplar) -> Exemplar:
        return replace(exemplar, embedding=embeddings[exemplar]) if isinstance(exemplar, TrackExemplar) else exemplar

    return vocabulary.with_exemplars(with_embedding)


def _read(
    tracks: Sequence[TrackExemplar], model_fingerprint: str, labels: str | None
) -> dict[TrackExemplar, _Embedding]:
    """Returns the embeddings of tracks of one archive."""
    first = tracks[0]
    archive = first.archive or labels
    if archive is None:
        raise ValueError(f"{first.place}: {first}: of which archive? Write {first} of ARCHIVE, the output of a run")
    try:
        results = open_labels(archive)
    except ValueError as error:
        raise ValueError(f"{first.place}: {first}: {str(error).removeprefix('labels: ')}") from error
    ids = sorted({each.video_id for each in tracks})
    videos = {
        row["video_id"]: row
        for rows in results.scan("videos", ("video_id", *SAME_TRACKS), video_ids=ids)
        for row in rows.to_pylist()
    }
    schema = pa.schema([SCHEMAS["tracks"].field(name) for name in _COLUMNS])
    rows = [schema.empty_table(), *results.scan("tracks", _COLUMNS, video_ids=ids)]
    if any(each.track_id >= FIRST_ID for each in tracks):
        rows.append(_added(results, videos).cast(schema))
    table = pa.concat_tables(rows)
    keys = list(zip(table["video_id"].to_pylist(), table["track_id"].to_pylist(), strict=True))
    found = dict(zip(keys, track_embeddings(table) if keys else (), strict=True))
    for each in tracks:
        _check(each, archive, videos, [number for video, number in found if video == each.video_id], model_fingerprint)
    return {each: found[each.video_id, each.track_id] for each in tracks}


def _added(results: Results, videos: dict[str, Row]) -> pa.Table:
    """Returns the tracks that reviewers added to some videos, without stale ones."""
    tracks = Additions(results.storage).tracks().select(sorted({*_COLUMNS, *SAME_TRACKS}))
    rows = tracks.select(["video_id", *SAME_TRACKS]).to_pylist()
    fresh = [row["video_id"] in videos and not is_stale(row, dict(videos[row["video_id"]])) for row in rows]
    return tracks.filter(pa.array(fresh, pa.bool_())).select(list(_COLUMNS))


def _check(
    track: TrackExemplar, archive: str, videos: dict[str, Row], numbers: Sequence[int], model_fingerprint: str
) -> None:
    where = f"{track.place}: {track}"
    if track.video_id not in videos:
        raise ValueError(f"{where}: there is no video {track.video_id} in {archive}; correct its id")
    if track.track_id not in numbers:
        labelled = [number for number in numbers if number < FIRST_ID]
        has = f"tracks {min(labelled)} to {max(labelled)}" if labelled else "no tracks"
        raise ValueError(f"{where}: the video has no track {track.track_id} in {archive}, it has {has}; correct the id")
    if videos[track.video_id]["model_fingerprint"] != model_fingerprint:
        raise ValueError(
            f"{where}: was labelled with another model, whose embeddings cannot be compared; label {archive} with this "
            "model, or give a picture instead"
        )
