"""BURST's files: ground truth and results as JSON, one dict of masks per annotated frame.

A file is {split, sequences, categories}. A sequence has dataset, seq_name, annotated_image_paths, track_category_ids
(track to category) and segmentations: per annotated frame {track: {rle, score}}.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.datasets.annotations import Mask, PredictedTrack
from pipelines.datasets.burst import BurstDetections, BurstGroundTruth, BurstPredictions
from pipelines.datasets.burst_entries import BurstReader
from pipelines.datasets.documents import Document, read_document, read_json
from pipelines.storage.files import Storage


def read_ground_truth(path: str, *, strict: bool, problems: list[str] | None = None) -> BurstGroundTruth:
    """Reads a ground truth file such as `all_classes.json`.

    Args:
        path: the file.
        strict: refuses masks without pixels, categories that LVIS v0.5 lacks, and a file that does not name its
            categories, which BURST's evaluator accepts.
        problems: list that collects the errors of single sequences, which are then left out; None raises the first.

    Raises:
        ValueError: names file, sequence, frame, track, value and remedy.
    """

    def read(document: Document) -> BurstGroundTruth:
        reader, content = BurstReader(path, strict, document.lifted), document.content
        split = reader.get(content, "split", str, "the file")
        sequences = []
        for item in reader.get(content, "sequences", list, "the file"):
            try:
                sequences.append(reader.sequence(item, split))
            except ValueError as error:
                if problems is None or not document.plain:
                    raise
                problems.append(str(error))
        for name, times in Counter(sequence.name for sequence in sequences).items():
            if times > 1:
                reader.fail(f"sequence {name}", f"is listed {times} times; list it once")
        categories = reader.categories(content)
        return BurstGroundTruth(
            path=path,
            sha256=document.sha256,
            split=split,
            sequences=tuple(sequences),
            categories=categories,
            warnings=dict(reader.warnings),
        )

    return read_document(path, read, every_error=problems is not None)


def read_predictions(path: str, ground_truth: BurstGroundTruth, *, strict: bool) -> BurstPredictions:
    """Reads a result file. Sequences are found by dataset and seq_name, frames by image path.

    Predictions on frames that are not annotated are left out.

    Args:
        path: the file.
        ground_truth: the ground truth that the predictions are for.
        strict: refuses oddities that BURST's evaluator accepts: sequences that the ground truth lacks,
            missing sequences and frames, another frame size, unknown categories, missing scores or ones that are not
            finite, masks without pixels. Otherwise these are counted in `warnings`, and so is track id 0, which the
            evaluator takes for none, in both cases.

    Raises:
        ValueError: names file, sequence, frame, track, value and remedy.
    """

    def read(document: Document) -> BurstPredictions:
        reader, content = BurstReader(path, strict, document.lifted), document.content
        if isinstance(content, dict) and content.get("split", ground_truth.split) != ground_truth.split:
            reader.fail("the file", f"split is {content['split']!r}; the ground truth's is {ground_truth.split!r}")
        items: dict[str, list[Any]] = {sequence.name: [] for sequence in ground_truth.sequences}
        for item in reader.get(content, "sequences", list, "the file"):
            name = reader.name(item, ground_truth.split)
            if name not in items:
                reader.tolerate("unknown_sequences", f"sequence {name}", "is not in the ground truth; leave it out")
            elif items[name]:
                reader.tolerate("repeated_sequences", f"sequence {name}", "is listed before; list it once")
            items.setdefault(name, []).append(item)
        sequences = tuple(reader.predictions(items[sequence.name], sequence) for sequence in ground_truth.sequences)
        return BurstPredictions(path=path, sha256=document.sha256, sequences=sequences, warnings=dict(reader.warnings))

    return read_document(path, read)


def write_predictions(path: str, ground_truth: BurstGroundTruth, sequences: Sequence[BurstDetections]) -> None:
    """Writes a result file: the JSON of the ground truth with the predictions' tracks, categories, scores and masks.

    Masks without pixels are left out. The file appears whole or not at all.

    Args:
        path: the file; its folder is made if missing.
        ground_truth: the ground truth, whose file is read again.
        sequences: the predictions of each of its sequences.

    Raises:
        ValueError: the ground truth file has changed; a track id below 1; a track with several categories; a score
            that is not finite; a broken mask.
    """
    document, sha256 = read_json(ground_truth.path)
    if sha256 != ground_truth.sha256:
        raise ValueError(f"{ground_truth.path}: has changed since it was read; read it again")
    reader = BurstReader(path, True)
    for item, sequence, rows in zip(document["sequences"], ground_truth.sequences, sequences, strict=True):
        here = [f"sequence {sequence.name}, frame {sequence.image_paths[f]}" for f in rows.frame]
        where = [f"{frame}, track {track}" for frame, track in zip(here, rows.track_id, strict=True)]
        masks = tuple(mask._replace(height=sequence.height, width=sequence.width) for mask in rows.masks)
        areas = reader.read(masks, where.__getitem__).areas
        categories: dict[str, int] = {}
        segmentations: list[dict[str, Any]] = [{} for _ in sequence.image_paths]
        for row in np.flatnonzero(areas).tolist():
            track, category, score = rows.track_id[row].item(), rows.category_id[row].item(), rows.score[row].item()
            if track < 1 or not math.isfinite(score):
                reader.fail(where[row], f"score is {score}; give finite scores, and ids from 1")
            if categories.setdefault(str(track), category) != category:
                reader.fail(where[row], f"category is {category}, before {categories[str(track)]}; give a track one")
            entry = {"rle": masks[row].counts.decode(), "score": score}
            if segmentations[rows.frame[row]].setdefault(str(track), entry) is not entry:
                reader.fail(where[row], "occurs twice in the frame; give ids that are unique")
        item |= {"track_category_ids": categories, "segmentations": segmentations}
    target = Path(path)
    with Storage(str(target.parent)).write(target.name) as file:
        file.write(json.dumps(document, separators=(",", ":")).encode())


def write_tracks(path: str, ground_truth: BurstGroundTruth, tracks: Iterable[PredictedTrack]) -> None:
    """Writes whole tracks as a result file, as `write_predictions` does.

    Args:
        path: the file; its folder is made if missing.
        ground_truth: the ground truth, whose file is read again.
        tracks: tracks in the videos of `BurstGroundTruth.videos`, with a mask or None per frame. Tracks are numbered
            from 1 in their sequence; each of its masks gets the score of the track.

    Raises:
        ValueError: `write_predictions` refuses the tracks; an unknown video; another number of masks than the video has
            frames; a mask of another size.
    """
    rows: list[list[tuple[int, int, PredictedTrack, Mask]]] = [[] for _ in ground_truth.sequences]
    numbers = Counter[int]()
    for track in tracks:
        if not 1 <= track.video_id <= len(rows):
            raise ValueError(f"{path}: video id {track.video_id}; give ids from 1 to {len(rows)}")
        sequence = ground_truth.sequences[track.video_id - 1]
        numbers[track.video_id] += 1
        where = f"{path}: sequence {sequence.name}, track {numbers[track.video_id]}"
        if len(track.masks) != len(sequence.image_paths):
            raise ValueError(f"{where}: {len(track.masks)} masks for {len(sequence.image_paths)} frames; give one each")
        for frame, mask in enumerate(track.masks):
            if mask is None:
                continue
            if mask[:2] != (sequence.height, sequence.width):
                size = f"{mask.height}x{mask.width}"
                raise ValueError(f"{where}: a mask of {size}; give {sequence.height}x{sequence.width} (height x width)")
            rows[track.video_id - 1].append((frame, numbers[track.video_id], track, mask))
    write_predictions(path, ground_truth, [_detections(members) for members in rows])


def _detections(rows: list[tuple[int, int, PredictedTrack, Mask]]) -> BurstDetections:
    return BurstDetections(
        frame=np.array([frame for frame, _, _, _ in rows], np.int64),
        track_id=np.array([number for _, number, _, _ in rows], np.int64),
        category_id=np.array([track.category_id for _, _, track, _ in rows], np.int64),
        score=np.array([track.score for _, _, track, _ in rows], np.float64),
        masks=tuple(mask for _, _, _, mask in rows),
    )
