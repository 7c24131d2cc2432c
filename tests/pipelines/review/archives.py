"""A labelled archive for reviews, made without a model: videos whose frames show their number, and boxes as masks."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from openvis_model.text_embedding import embed_vocabulary
from openvis_model.vocabulary import Vocabulary
from pipelines.archive.parts import Rows
from pipelines.archive.reviews import Reviews
from pipelines.archive.tables import Results
from pipelines.models import load_light_model
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name, row
from tests.pipelines.video.clips import H264, VFR, write_clip

HEIGHT, WIDTH = 96, 128
EVIL_NAME = "<img src=x onerror=window.hacked=1>.mp4"
EVIL_CATEGORY = '<img src=x onerror="window.hacked=2">'

Tracks = Mapping[int, tuple[str, float, Sequence[int]]]
"""By track: category, score, and the frames that show it."""

NUMBERED: Tracks = {
    1: ("red striped star", 0.9, range(0, 48, 2)),
    2: ("blue dotted moon", 0.5, (*range(0, 20, 2), *range(32, 48, 2))),
    4: ("red striped star", 0.3, range(30, 48, 2)),
}
"""Every second frame of numbered.mp4 was labelled; track 2 has a gap."""


@cache
def model() -> Any:
    return load_light_model(None)


@cache
def embedding(category: str) -> list[float]:
    """As the built-in model embeds a text; of a name that it cannot read, a fixed direction."""
    try:
        text = embed_vocabulary(Vocabulary.handwritten([[category]]), model().text_encoder)
    except ValueError:
        vector = np.random.default_rng(0).normal(size=len(embedding("red striped star")))
        return (vector / np.linalg.norm(vector)).tolist()
    return text.embeddings[0].tolist()


def box(track: int, frame: int) -> np.ndarray:
    """A mask, uint8 [96, 128]: a box whose left side is at the frame's number."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[16 * track : 16 * track + 12, frame : frame + 24] = 1
    return mask


def put_video(results: Results, part: str, name: str, uri: str, tracks: Tracks, times: Sequence[float]) -> None:
    """Puts a part with one video in place."""
    rows = Rows()
    about = {"status": "ok", "width": WIDTH, "height": HEIGHT, "fps": len(times) / (times[-1] + 0.03)}
    prints = {"model_fingerprint": model().fingerprint, "vocabulary_fingerprint": "v", "config_fingerprint": "c"}
    about |= {"duration_s": times[-1] + 0.03, "frames": len(times), "expected_frames": len(times)}
    rows.add("videos", [row("videos", video_id=name, uri=uri, tracks=len(tracks), **about, **prints)])
    for track, (category, score, frames) in tracks.items():
        own = {"video_id": name, "track_id": track}
        seen = {"first_frame": frames[0], "last_frame": frames[-1], "frames": len(frames), "objectness": 0.9}
        about_track = {"category": category, "score": score, "top": [{"category": category, "score": score}]}
        rows.add("tracks", [row("tracks", **own, **seen, **about_track, embedding=embedding(category))])
        for frame in frames:
            rle = coco.encode(np.asfortranarray(box(track, frame)))
            x, y, width, height = (int(side) for side in coco.toBbox(rle))
            shape = {"x": x, "y": y, "width": width, "height": height, "area": width * height, "score": 0.9}
            counts = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
            rows.add("masks", [row("masks", **own, **shape, frame=frame, time_s=times[frame], rle=counts)])
    rows.put(results.storage, part)


def write_videos(folder: Path) -> None:
    """A video with uneven frames, one with a hostile name, and one that no browser plays."""
    folder.mkdir()
    write_clip(folder / "numbered.mp4", times=VFR, options=H264)
    write_clip(folder / EVIL_NAME, frames=16, fps=8, options=H264)
    write_clip(folder / "old.avi", frames=16, fps=8, codec="mpeg4")


def write_labels(labels: str, videos: str) -> Results:
    """Writes labels of the videos in a folder, and of one that is not there."""
    results = Results(Storage(labels))
    even = [number / 8 for number in range(16)]
    uneven = [float(round(time / Fraction(1, 1000))) / 1000 for time in VFR]
    put_video(results, part_name(1, 1), "numbered", f"{videos}/numbered.mp4", NUMBERED, uneven)
    evil: Tracks = {1: (EVIL_CATEGORY, 0.8, range(16))}
    put_video(results, part_name(1, 2), EVIL_NAME, f"{videos}/{EVIL_NAME}", evil, even)
    old: Tracks = {1: ("green plain ring", 0.7, range(0, 16, 4)), 2: ("red striped star", 0.6, (0, 4, 8))}
    put_video(results, part_name(1, 3), "old", f"{videos}/old.avi", old, even)
    put_video(results, part_name(1, 4), "gone", f"{videos}/gone.mp4", {1: ("green plain ring", 0.2, (3,))}, even)
    return results


def decided(labels: str) -> dict[tuple[str, int, int | None], tuple[str, str | None]]:
    """Returns action and category of each decision that counts, by video, track and piece."""
    rows = Reviews(Storage(labels)).read().to_pylist()
    return {(row["video_id"], row["track_id"], row["split_at"]): (row["action"], row["category"]) for row in rows}
