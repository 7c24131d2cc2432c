"""YTVOSeval restated as plainly as the official code works: tests compare with it, the benchmark races it.

Every pair of masks is merged twice, every category, area range and video is matched on its own, threshold by threshold,
and precision is read off recall by recall.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco

from pipelines.datasets.annotations import GroundTruth, Mask, PredictedTrack
from pipelines.metrics.track_matching import ApRules

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
    return float(np.mean(there)) if there else 0.0


def plain_ap(ground_truth: GroundTruth, predictions: Sequence[PredictedTrack], rules: ApRules) -> dict[str, float]:
    """The twelve statistics."""
    videos, categories = ({each.id for each in items} for items in (ground_truth.videos, ground_truth.categories))
    category_ids = sorted(categories) if rules.categories else [-1]
    gts, dts = defaultdict(list), defaultdict(list)
    whole = rules.areas == "whole pixels"
    for track in sorted(ground_truth.tracks, key=lambda track: 0 if rules.categories else track.category_id):
        areas = [int(area) if whole else area for area in track.areas if area]
        gt = {"id": track.id, "masks": [to_coco(mask) for mask in track.masks], "area": mean_area(areas)}
        gt |= {"crowd": track.crowd, "ignore": track.crowd and rules.crowd == "ignored"}
        gts[track.video_id, track.category_id if rules.categories else -1].append(gt)
    labels = [track.category_id if rules.forced_category is None else rules.forced_category for track in predictions]
    labelled = list(zip(range(1, len(labels) + 1), labels, predictions, strict=True))
    for number, category, track in sorted(labelled, key=lambda each: 0 if rules.categories else each[1]):
        if category in categories:
            masks = [to_coco(mask) for mask in track.masks]
            areas = [float(coco.area(mask)) if mask else None for mask in masks]
            # The official tool takes the boxes as well; nothing reads them.
            boxes = [coco.toBbox(mask) if mask else None for mask in masks]
            dt = {"id": number, "score": track.score, "masks": masks, "area": mean_area(areas), "boxes": boxes}
            dts[track.video_id, category if rules.categories else -1].append(dt)
    for key, its in dts.items():
        dts[key] = [its[i] for i in np.argsort([-dt["score"] for dt in its], kind="mergesort")]
        dts[key] = dts[key][: rules.max_detections[-1]]

    ious = {}
    for video in sorted(videos):
        for category in category_ids:
            gt, dt = gts.get((video, category), []), dts.get((video, category), [])
            ious[video, category] = np.array([[plain_iou(d["masks"], g["masks"]) for g in gt] for d in dt])
    shape = (len(THRESHOLDS), len(category_ids), len(AREAS), len(rules.max_detections))
    precision, recall = -np.ones((*shape[:1], len(RECALLS), *shape[1:])), -np.ones(shape)
    for k, category in enumerate(category_ids):
        for a, area in enumerate(AREAS):
            groups = []
            for video in sorted(videos):
                gt, dt = gts.get((video, category), []), dts.get((video, category), [])
                if gt or dt:
                    groups.append(match_group(gt, dt, ious[video, category], area, rules))
            for m, limit in enumerate(rules.max_detections):
                accumulate(groups, limit, precision[:, :, k, a, m], recall[:, k, a, m])
    return summarize(precision, recall)


def match_group(gt: list[Any], dt: list[Any], ious: Any, area: tuple[float, float], rules: ApRules) -> dict[str, Any]:
    """The predictions of a video and category against its objects, for one area range."""
    ignore = [bool(g["ignore"] or g["area"] < area[0] or g["area"] > area[1]) for g in gt]
    order = np.argsort(ignore, kind="mergesort") if gt else []
    gt, ignore = [gt[i] for i in order], [ignore[i] for i in order]
    T = len(THRESHOLDS)
    g_matches, d_matches = np.zeros((T, len(gt)), bool), np.zeros((T, len(dt)), bool)
    d_ignore = np.zeros((T, len(dt)), bool)
    if gt and dt:
        ious = ious[:, order]
        for t, threshold in enumerate(THRESHOLDS):
            for d in range(len(dt)):
                iou, m = min(threshold, 1 - 1e-10), -1
                for g in range(len(gt)):
                    if g_matches[t, g] and not gt[g]["crowd"]:
                        continue
                    if m > -1 and not ignore[m] and ignore[g]:
                        break
                    if ious[d, g] < iou:
                        continue
                    iou, m = ious[d, g], g
                if m > -1:
                    d_ignore[t, d] = ignore[m]
                    d_matches[t, d] = rules.strict or gt[m]["id"] != 0
                    g_matches[t, m] = True
    outside = np.array([d["area"] < area[0] or d["area"] > area[1] for d in dt], bool)
    d_ignore |= ~d_matches & outside
    return {"matches": d_matches, "ignore": d_ignore, "scores": [d["score"] for d in dt], "gt_ignore": ignore}


def accumulate(groups: list[dict[str, Any]], limit: int, precision: Any, recall: Any) -> None:
    """Fills the precision [T, R] and recall [T] of one category, area range and limit."""
    positives = sum(not ignored for group in groups for ignored in group["gt_ignore"])
    if positives == 0:
        return
    order = np.argsort(-np.concatenate([group["scores"][:limit] for group in groups]), kind="mergesort")
    matches, ignore = (
        np.concatenate([g[key][:, :limit] for g in groups], 1)[:, order] for key in ("matches", "ignore")
    )
    rights, wrongs = np.cumsum(matches & ~ignore, 1), np.cumsum(~matches & ~ignore, 1)
    for t, (right, wrong) in enumerate(zip(rights, wrongs, strict=True)):
        rc, pr = right / positives, (right / (wrong + right + np.spacing(1))).tolist()
        recall[t] = rc[-1] if len(rc) else 0
        for i in range(len(pr) - 1, 0, -1):
            if pr[i] > pr[i - 1]:
                pr[i - 1] = pr[i]
        q = [0.0] * len(RECALLS)
        for r, i in enumerate(np.searchsorted(rc, RECALLS, side="left")):
            if i == len(pr):
                break
            q[r] = pr[i]
        precision[t] = q


def summarize(precision: Any, recall: Any) -> dict[str, float]:
    ap = [precision[..., 0, -1], precision[0, ..., 0, -1], precision[5, ..., 0, -1]]
    ap += [precision[..., a, -1] for a in (1, 2, 3)]
    ar = [recall[..., 0, m] for m in range(3)] + [recall[..., a, -1] for a in (1, 2, 3)]
    return {n: float(s[s > -1].mean()) if (s > -1).any() else -1.0 for n, s in zip(NAMES, ap + ar, strict=True)}
