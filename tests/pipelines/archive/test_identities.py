from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.archive.config import IdentitiesConfig
from pipelines.archive.identities import SCHEMA, find_identities, link
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name, put_tracks

A, B, C = np.eye(4, dtype=np.float32)[:3]

UNKNOWN = (np.nan,) * 3
"""The colour of a track whose labels have none."""


def near(vector: np.ndarray, other: np.ndarray, cosine: float) -> np.ndarray:
    """A unit vector whose cosine with `vector` is given, in the plane of two orthogonal ones."""
    return (cosine * vector + (1 - cosine**2) ** 0.5 * other).astype(np.float32)


def identities(
    vectors: list[np.ndarray],
    spans: list[tuple[int, int]],
    videos: list[int] | None = None,
    frames: list[int] | None = None,
    colours: list[tuple[float, float, float]] | None = None,
    *,
    threshold: float = 0.9,
    across: bool = False,
) -> list[int]:
    count = len(vectors)
    numbers = (np.array(each or [default] * count, np.int32) for each, default in ((frames, 1), (videos, 0)))
    shown = np.array(colours or [UNKNOWN] * count, np.float32)
    found, _ = link(
        np.stack(vectors), *numbers, np.array(spans, np.int32).reshape(-1, 2), shown, threshold=threshold, across=across
    )
    return found.tolist()


def test_an_object_that_returns_is_one() -> None:
    assert identities([A, B, near(A, C, 0.95)], [(0, 4), (0, 9), (6, 9)]) == [0, 1, 0]
    assert identities([A, B, near(A, C, 0.85)], [(0, 4), (0, 9), (6, 9)]) == [0, 1, 2]


def test_colours_tell_look_alikes_apart() -> None:
    """A distance of 400 weighs as much as a cosine of one, so at a threshold of 0.9, equal embeddings may differ by 40.

    The third track has the embedding of the first, and the colour of the second. An unknown colour is not compared.
    """
    spans, one = [(0, 4), (0, 4), (6, 9)], near(A, B, 0.98)
    assert identities([A, one, A], spans, colours=[(90, 0, 0), (120, 40, 0), (120, 40, 0)]) == [0, 1, 1]
    assert identities([A, one, A], spans, colours=[UNKNOWN] * 3) == [0, 1, 0]
    for colour, expected in (((100, 24, 31.9), [0, 0]), ((100, 24, 32.1), [0, 1]), (UNKNOWN, [0, 0])):
        assert identities([A, A], spans[::2], colours=[(100, 0, 0), colour]) == expected
    assert identities([A, near(A, C, 0.95)], spans[::2], colours=[(0, 0, 0), (12, 16, 0)]) == [0, 0]
    assert identities([A, near(A, C, 0.94)], spans[::2], colours=[(0, 0, 0), (12, 16, 0)]) == [0, 1]


def test_the_mean_colour_must_be_near_too() -> None:
    """The colours of the first two have the mean 15 if they are as long, and 28 if the second is much longer."""
    colours = [(0.0, 0, 0), (30.0, 0, 0), (60.0, 0, 0)]
    assert identities([A, A, A], [(0, 1), (2, 3), (4, 5)], colours=colours) == [0, 0, 1]
    assert identities([A, A, A], [(0, 1), (2, 3), (4, 5)], frames=[1, 15, 1], colours=colours) == [0, 0, 0]


def test_what_is_seen_together_is_two() -> None:
    """Also by way of a third, which is linked to the more similar one."""
    assert identities([A, A], [(0, 4), (4, 9)]) == [0, 1]
    assert identities([near(A, B, 0.97), A, near(A, C, 0.99)], [(0, 4), (2, 6), (8, 9)]) == [0, 1, 1]


def test_the_mean_must_be_similar_too() -> None:
    """A chain of neighbours ends where it has drifted: 20° from one to the next, each 10 frames, 0.9 is 25.8°."""
    turned = [np.array([np.cos(angle), np.sin(angle), 0, 0], np.float32) for angle in np.radians([0, 20, 41])]
    assert identities(turned, [(0, 1), (2, 3), (4, 5)]) == [0, 0, 1]
    # The second one weighs more, so that the mean is at 18° instead of 10°.
    assert identities(turned, [(0, 1), (2, 3), (4, 5)], frames=[1, 10, 1]) == [0, 0, 0]


def test_videos_are_linked_if_asked_for() -> None:
    vectors, spans, videos = [A, B, A, near(A, C, 0.99)], [(0, 9)] * 4, [0, 0, 1, 2]
    assert identities(vectors, spans, videos) == [0, 1, 2, 3]
    assert identities(vectors, spans, videos, across=True) == [0, 1, 0, 0]
    # Two look-alikes in one video are two objects; the third video's belongs to the more similar one.
    vectors = [A, near(A, B, 0.96), near(A, C, 0.98)]
    assert identities(vectors, [(0, 9)] * 3, [0, 0, 1], across=True) == [0, 1, 0]


def test_look_alikes_that_are_seen_together_hide_no_link() -> None:
    """A herd before and after a cut: nearest to each are the others of its shot, which it can't be."""
    count, random = 12, np.random.default_rng(0)
    each = np.eye(2 * count + 2, dtype=np.float32)
    shots = [each[-2] + 0.05 * each[-1], each[-2] - 0.35 * each[-1]]
    vectors = [shot + 0.1 * animal for shot in shots for animal in each[:count]]
    vectors = [(vector / np.linalg.norm(vector)).astype(np.float32) for vector in vectors]
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[count] > 0.9
    order = random.permutation(2 * count)
    spans = [(0, 4) if place < count else (5, 9) for place in order]
    found = identities([vectors[place] for place in order], spans)
    animals = [place % count for place in order]
    assert len(set(found)) == count
    assert len(set(zip(found, animals, strict=True))) == count


def test_an_identity_may_have_many_tracks() -> None:
    """Seen anew in each of many spans, and once in two at a time."""
    count = 3000
    spans = [(3 * number, 3 * number + 1) for number in range(count)]
    found = identities([A] * (count + 1), [*spans, (4000, 4003)])
    assert sorted(np.bincount(found).tolist()) == [1, count]


def test_labels_without_colours_are_linked_by_embeddings(tmp_path: Path) -> None:
    """Those of earlier versions: they have no such column."""
    rows = [
        {"video_id": "a", "track_id": track, "frames": 5, "first_frame": start, "last_frame": start + 4}
        for track, start in ((1, 0), (2, 10), (3, 20))
    ]
    colours: list[list[float] | None] = [[0.0, 0, 0], [90.0, 0, 0], None]
    for name, given, expected in (("with", colours, (2, 1)), ("without", [None] * 3, (1, 1))):
        results = Results(Storage(str(tmp_path / name)))
        tracks = [{**row, "embedding": A.tolist(), "colour": each} for row, each in zip(rows, given, strict=True)]
        put_tracks(results, part_name(1), "m", *tracks)
        if name == "without":
            path = next((tmp_path / name / "tracks").glob("*.parquet"))
            pq.write_table(pq.read_table(path).drop_columns("colour"), path)
        summary = find_identities(IdentitiesConfig(labels=str(tmp_path / name)))
        assert (summary.identities, summary.linked) == expected


def test_none_and_one() -> None:
    assert identities([A], [(0, 1)]) == [0]


def test_the_table_has_a_row_for_each_track(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path)))
    rows = [
        {"video_id": video, "track_id": track, "frames": 5, "first_frame": start, "last_frame": start + 4}
        for video, track, start in (("b", 1, 0), ("b", 3, 10), ("a", 2, 0))
    ]
    vectors = [A, near(A, B, 0.95), A]
    tracks = [{**row, "embedding": vector.tolist()} for row, vector in zip(rows, vectors, strict=True)]
    put_tracks(results, part_name(1), "m", *tracks[:2])
    put_tracks(results, part_name(2), "m", tracks[2])
    put_tracks(results, part_name(3), "other", {"video_id": "c", "track_id": 0, "embedding": [1.0]})
    summary = find_identities(IdentitiesConfig(labels=str(tmp_path)))
    assert (summary.tracks, summary.identities, summary.linked) == (4, 3, 1)
    table = pq.read_table(tmp_path / "identities.parquet")
    assert table.schema.equals(SCHEMA)
    found = {(row["video_id"], row["track_id"]): (row["identity"], row["similarity"]) for row in table.to_pylist()}
    assert found == {
        ("a", 2): (1, pytest.approx(1)),
        ("b", 1): (0, pytest.approx((1 + 0.95) / np.sqrt(2 + 2 * 0.95))),
        ("b", 3): (0, pytest.approx((1 + 0.95) / np.sqrt(2 + 2 * 0.95))),
        ("c", 0): (2, pytest.approx(1)),
    }
    across = find_identities(IdentitiesConfig(labels=str(tmp_path), across_videos=True, output=f"{tmp_path}/x.parquet"))
    assert (across.tracks, across.identities, across.linked) == (4, 2, 1)
