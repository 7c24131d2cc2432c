"""YTVOSeval restated as plainly as the official code works: tests compare with it, the benchmark races it.

It takes the steps of youtubevos/cocoapi, no more and no fewer: area and box of every predicted mask on loading; every
pair of masks merged twice, in every video and category; every category, area range and video matched on its own,
threshold by threshold; precision and scores read off recall by recall. Only printing and copying are left out.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

from pipelines.datasets.annotations import GroundTruth, Mask, PredictedTrack
from pipelines.metrics.rules import ApRules

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS = ((0, 1e10), (0, 128**2), (128**2, 256**2), (256**2, 1e10))
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def to_coco(mask: Mask | None) -> dict[str, Any] | None:
    return None if mask is None else {"size": [mask.height, mask.width], "counts": mask.counts}


def plain_iou(d_masks: Sequence[Any], g_masks: Sequence[Any]) -> float:
    """The overlap of two tracks, frame by frame."""
    i = u = 0.0
    for d, g in zip(d_masks, g_masks, strict=False):
        if d and g:
            i += coco.area(coco.merge([d, g], True))
            u += coco.area(coco.merge([d, g], False))
        elif d or g:
            u += coco.area(d or g)
    return i / u if u > 0 else 0.0


def mean_area(areas: Sequence[float | None]) -> float:
    there = [area for area in areas if area]
    return float(np.array(there).mean()) if there else 0


def plain_ap(ground_truth: GroundTruth, predictions: Sequence[PredictedTrack], rules: ApRules) -> dict[str, float]:
    """The twelve statistics."""
    videos = sorted(video.id for video in ground_truth.videos)
    categories = sorted(category.id for category in ground_truth.categories) if rules.categories else [-1]
    gts, dts = load(ground_truth, predictions, rules)
    ious = {(video, k): video_ious(gts[video, k], dts[video, k], rules) for video in videos for k in categories}
    groups = [
        match_group(gts[video, k], dts[video, k], ious[video, k], area, rules)
        for k in categories
        for area in AREAS
        for video in videos
    ]
    shape = (len(THRESHOLDS), len(RECALLS), len(categories), len(AREAS), len(rules.max_detections))
    precision, scores, recall = -np.ones(shape), -np.ones(shape), -np.ones((shape[0], *shape[2:]))
    for k in range(len(categories)):
        for a in range(len(AREAS)):
            first = (k * len(AREAS) + a) * len(videos)
            for m, limit in enumerate(rules.max_detections):
                its = [groups[first + i] for i in range(len(videos))]
                at = (slice(None), slice(None), k, a, m)
                its = [each for each in its if each is not None]
                accumulate(its, limit, precision[at], scores[at], recall[:, k, a, m])
    return summarize(precision, recall)


def load(ground_truth: GroundTruth, predictions: Sequence[PredictedTrack], rules: ApRules) -> tuple[Any, Any]:
    """Objects and predictions by video and category; each prediction's areas and boxes, though nothing reads these."""
    whole = rules.areas == "whole pixels"
    known = {category.id for category in ground_truth.categories}
    gts, dts = defaultdict(list), defaultdict(list)
    for track in sorted(ground_truth.tracks, key=lambda track: 0 if rules.categories else track.category_id):
        areas = [int(area) if whole else area for area in track.areas if area]
        gt = {"id": track.id, "masks": [to_coco(mask) for mask in track.masks], "area": mean_area(areas)}
        gt |= {"crowd": track.crowd, "ignore": track.crowd and rules.crowd == "ignored"}
        gts[track.video_id, track.category_id if rules.categories else -1].append(gt)
    labels = [track.category_id if rules.forced_category is None else rules.forced_category for track in predictions]
    labelled = list(zip(range(1, len(labels) + 1), labels, predictions, strict=True))
    for number, category, track in sorted(labelled, key=lambda each: 0 if rules.categories else each[1]):
        masks = [to_coco(mask) for mask in track.masks]
        dt: dict[str, Any] = {"id": number, "score": track.score, "masks": masks, "areas": [], "boxes": []}
        for mask in masks:
            dt["areas"].append(coco.area(mask) if mask else None)
            dt["boxes"].append(coco.toBbox(mask) if mask else None)
        dt["area"] = mean_area(dt["areas"])
        if category in known:
            dt["area"] = mean_area(dt["areas"])  # when its masks are converted, again
            dts[track.video_id, category if rules.categories else -1].append(dt)
    return gts, dts


def best(dt: list[Any], rules: ApRules) -> list[Any]:
    order = np.argsort([-d["score"] for d in dt], kind="mergesort")
    return [dt[i] for i in order][: rules.max_detections[-1]]


def video_ious(gt: list[Any], dt: list[Any], rules: ApRules) -> Any:
    if not gt and not dt:
        return []
    dt = best(dt, rules)
    ious = np.zeros([len(dt), len(gt)])
    for d, g in np.ndindex(ious.shape):
        ious[d, g] = plain_iou(dt[d]["masks"], gt[g]["masks"])
    return ious


def match_group(gt: list[Any], dt: list[Any], ious: Any, area: tuple[float, float], rules: ApRules) -> Any:
    """The predictions of a video and category against its objects, for one area range; None if there are neither."""
    if not gt and not dt:
        return None
    ignore = [int(g["ignore"] or g["area"] < area[0] or g["area"] > area[1]) for g in gt]
    order = np.argsort(ignore, kind="mergesort")
    gt, g_ignore = [gt[i] for i in order], np.array([ignore[i] for i in order])
    dt = best(dt, rules)
    crowd = [int(g["crowd"]) for g in gt]
    ious = ious[:, order] if len(ious) > 0 else ious
    T = len(THRESHOLDS)
    g_matches, d_matches, d_ignore = np.zeros((T, len(gt))), np.zeros((T, len(dt))), np.zeros((T, len(dt)))
    if len(ious) > 0:
        for t, threshold in enumerate(THRESHOLDS):
            for d in range(len(dt)):
                iou, m = min(threshold, 1 - 1e-10), -1
                for g in range(len(gt)):
                    if g_matches[t, g] > 0 and not crowd[g]:
                        continue
                    if m > -1 and g_ignore[m] == 0 and g_ignore[g] == 1:
                        break
                    if ious[d, g] < iou:
                        continue
                    iou, m = ious[d, g], g
                if m == -1:
                    continue
                d_ignore[t, d] = g_ignore[m]
                d_matches[t, d] = rules.strict or gt[m]["id"]
                g_matches[t, m] = dt[d]["id"]
    outside = np.array([d["area"] < area[0] or d["area"] > area[1] for d in dt]).reshape((1, len(dt)))
    d_ignore = np.logical_or(d_ignore, np.logical_and(d_matches == 0, np.repeat(outside, T, 0)))
    ids = {"dt_ids": [d["id"] for d in dt], "gt_ids": [g["id"] for g in gt], "gt_matches": g_matches}
    scores = [d["score"] for d in dt]
    return ids | {"matches": d_matches, "ignore": d_ignore, "scores": scores, "gt_ignore": g_ignore}


def accumulate(groups: list[Any], limit: int, precision: Any, scores: Any, recall: Any) -> None:
    """Fills the precision and the scores [T, R] and the recall [T] of one category, area range and limit."""
    if not groups:
        return
    its_scores = np.concatenate([group["scores"][:limit] for group in groups])
    order = np.argsort(-its_scores, kind="mergesort")
    its_scores = its_scores[order]
    matches = np.concatenate([group["matches"][:, :limit] for group in groups], 1)[:, order]
    ignore = np.concatenate([group["ignore"][:, :limit] for group in groups], 1)[:, order]
    positives = np.count_nonzero(np.concatenate([group["gt_ignore"] for group in groups]) == 0)
    if positives == 0:
        return
    rights = np.cumsum(np.logical_and(matches, np.logical_not(ignore)), 1).astype(float)
    wrongs = np.cumsum(np.logical_and(np.logical_not(matches), np.logical_not(ignore)), 1).astype(float)
    for t, (right, wrong) in enumerate(zip(rights, wrongs, strict=True)):
        rc, pr = right / positives, (right / (wrong + right + np.spacing(1))).tolist()
        recall[t] = rc[-1] if len(rc) else 0
        for i in range(len(pr) - 1, 0, -1):
            if pr[i] > pr[i - 1]:
                pr[i - 1] = pr[i]
        q, at = [0.0] * len(RECALLS), np.zeros(len(RECALLS))
        for r, i in enumerate(np.searchsorted(rc, RECALLS, side="left")):
            if i == len(pr):
                break
            q[r], at[r] = pr[i], its_scores[i]
        precision[t], scores[t] = q, at


def summarize(precision: Any, recall: Any) -> dict[str, float]:
    ap = [precision[..., 0, -1], precision[0, ..., 0, -1], precision[5, ..., 0, -1]]
    ap += [precision[..., a, -1] for a in (1, 2, 3)]
    ar = [recall[..., 0, m] for m in range(3)] + [recall[..., a, -1] for a in (1, 2, 3)]
    return {n: float(s[s > -1].mean()) if (s > -1).any() else -1.0 for n, s in zip(NAMES, ap + ar, strict=True)}
