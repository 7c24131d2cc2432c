"""Errors of predictions and their costs, restated plainly: one prediction at a time, and by mending files."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipelines.datasets.annotations import GroundTruth, PredictedTrack
from pipelines.metrics.errors import KINDS
from pipelines.metrics.rules import ApRules
from pipelines.metrics.video_ap import video_ap
from tests.pipelines.metrics.tracks import Masks, area, random_data
from tests.reference_evaluation import plain_iou, to_coco


def scenes(seed: int) -> tuple[GroundTruth, list[PredictedTrack]]:
    """Random data with duplicates, fragments and switches, without equal scores."""
    ground_truth, predictions = random_data(seed)
    predictions += predictions[::2]
    rng = np.random.default_rng(seed)
    scores = rng.permutation(len(predictions)).tolist()
    mixed = []
    for each, score in zip(predictions, scores, strict=True):
        masks, others = each.masks, [other for other in predictions if other.video_id == each.video_id]
        if rng.random() < 0.3:
            kept = rng.integers(len(masks)) if masks else 0
            masks = tuple(mask if t == kept else None for t, mask in enumerate(masks))
        elif rng.random() < 0.4:
            cut = int(rng.integers(0, len(masks) + 1))
            masks = masks[:cut] + others[rng.integers(len(others))].masks[cut:]
        mixed.append(replace(each, masks=masks, score=float(score)))
    return ground_truth, mixed


def iou(one: Masks, other: Masks) -> float:
    return plain_iou([to_coco(mask) for mask in one], [to_coco(mask) for mask in other])


def plain_kinds(
    ground_truth: GroundTruth, predictions: Sequence[PredictedTrack], rules: ApRules
) -> tuple[dict[int, tuple[str, int]], set[int]]:
    """Per wrong prediction its kind and the object that is meant, decided one at a time; and objects that are taken."""
    known, objects = {category.id for category in ground_truth.categories}, ground_truth.tracks
    errors, taken = {}, set()
    for i in sorted(range(len(predictions)), key=lambda i: -predictions[i].score):
        each = predictions[i]
        category = rules.forced_category or each.category_id
        there = [
            (not o.crowd or rules.crowd == "counted", iou(each.masks, o.masks), g)
            for g, o in enumerate(objects)
            if o.video_id == each.video_id and o.category_id in known and category in known
        ]
        own = [it for it in there if not rules.categories or objects[it[2]].category_id == category]
        able = [it for it in own if it[1] >= 0.5 and (it[2] not in taken or objects[it[2]].crowd)]
        if able:
            taken.add(max(able)[2])
            continue
        _, other_iou, theirs = max((it for it in there if it not in own and it[0]), default=(True, 0, -1))
        own = [it for it in own if it[0]]
        _, own_iou, mine = max(own, default=(True, 0, -1))
        frames = [t for t, mask in enumerate(each.masks) if area(mask)]
        follows = [
            t for t in frames if any(iou(each.masks[t : t + 1], objects[g].masks[t : t + 1]) >= 0.5 for *_, g in own)
        ]
        if other_iou >= 0.5:
            errors[i] = "classification", theirs
        elif own_iou >= 0.5:
            errors[i] = "duplicate", -1
        elif own_iou > 0 and len(follows) >= len(frames) / 2:
            errors[i] = "tracking", mine
        else:
            errors[i] = ("localisation", mine) if own_iou >= 0.1 else ("background", -1)
    return errors, taken


def plain_costs(ground_truth: GroundTruth, predictions: list[PredictedTrack], rules: ApRules) -> dict[str, float]:
    """Mends the files: what is right gets the masks and category of its object, what vanishes is left out."""
    objects = ground_truth.tracks
    errors, taken = plain_kinds(ground_truth, predictions, rules)
    kept = tuple(o for g, o in enumerate(objects) if g in taken or any(aim == g for _, aim in errors.values()))
    mended = {"missed": (replace(ground_truth, tracks=kept), predictions)}
    for kind in KINDS[:-1]:
        done = {g for g, o in enumerate(objects) if (g in taken and not o.crowd) or (o.id == 0 and not rules.strict)}
        files = [each for i, each in enumerate(predictions) if i not in errors or errors[i][0] != kind]
        for i in sorted(errors, key=lambda i: -predictions[i].score):
            aim = errors[i][1]
            if errors[i][0] == kind and aim >= 0 and aim not in done:
                right = objects[aim]
                files.append(replace(predictions[i], masks=right.masks, category_id=right.category_id))
                done |= set() if right.crowd else {aim}
        mended[kind] = ground_truth, files
    before = video_ap(ground_truth, predictions, rules)["AP50"]
    return {kind: video_ap(*mended[kind], rules)["AP50"] - before for kind in KINDS}
