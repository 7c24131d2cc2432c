"""The errors that cost average precision: TIDE (Bolya et al., ECCV 2020) for tracks.

Every wrong prediction has one kind of error, and so has every object that no prediction comes near. For each kind, all
its errors and no others are mended and AP50 is computed again: its gain is the cost of that kind.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from pipelines.datasets.annotations import GroundTruth
from pipelines.metrics.rules import EMPTY_MEAN, ApRules
from pipelines.metrics.track_matching import AREAS, THRESHOLDS, Matches
from pipelines.metrics.video_ap import cells

KINDS = ("classification", "localisation", "tracking", "duplicate", "background", "missed")

_HALF = float(THRESHOLDS[0])  # the tube IoU at which a prediction is right
_NEAR = 0.1  # TIDE's: a tube IoU below it is background
_MOST = 0.5  # of a track's frames
_NONE = -1  # no kind, no object


@dataclass(frozen=True, kw_only=True, eq=False)
class _Objects:
    """The ground truth's tracks, in their order.

    Attributes:
        categories: as in `Matches`.
        counted: whether an object counts.
        several: whether any number of predictions can be right about it.
        findable: whether the rules ever find it.
    """

    categories: Int64[np.ndarray, "N"]
    counted: Bool[np.ndarray, "N"]
    several: Bool[np.ndarray, "N"]
    findable: Bool[np.ndarray, "N"]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Outcomes:
    """Outcomes of predictions, in the order of `Matches`, at a tube IoU of 0.5.

    Attributes:
        categories: as in `Matches`.
        scores: of the predictions.
        matched: the object that a prediction matched, a position among the ground truth's tracks, or -1.
        kinds: of errors, positions in `KINDS`; -1 if a prediction is not wrong.
        aims: the object that a prediction matches if it is mended, or -1.
    """

    categories: Int64[np.ndarray, "D"]
    scores: Float64[np.ndarray, "D"]
    matched: Int64[np.ndarray, "D"]
    kinds: Int64[np.ndarray, "D"]
    aims: Int64[np.ndarray, "D"]


def error_costs(ground_truth: GroundTruth, matches: Iterable[Matches], rules: ApRules) -> dict[str, float]:
    """Returns the AP50, a fraction, that would be gained if all errors of one kind, and no others, were mended.

    A prediction that matches nothing at a tube IoU of 0.5 has the first of these kinds that fits. Objects are those
    that count; of several the one with the largest tube IoU is meant.

    classification    a tube IoU of 0.5 or more with an object of another category
    duplicate         a tube IoU of 0.5 or more with an object of its category, which a better prediction has taken
    tracking          it overlaps an object of its category, and in at least half of the frames where it has pixels its
                      mask has an IoU of 0.5 or more with some object of its category: a fragment, or it switches
    localisation      a tube IoU of 0.1 or more with an object of its category
    background        everything else
    missed            an object that no prediction matches, nor would if classification, tracking or localisation errors
                      were mended

    Mended, a classification, tracking or localisation error is right about its object, in the object's category and
    with the prediction's score, unless another prediction is, or a better one with the same kind of error; then it
    vanishes, as duplicates and background do. Missed objects no longer count.

    Predictions matched to objects that do not count are no errors. Costs do not depend on each other and do not add up
    to 1 - AP50. Categories left without objects are not averaged; if none has any, AP50 is taken to be 1. The limit of
    the rules is applied before mending, not again after it.

    Args:
        ground_truth: the objects.
        matches: those of `match_tracks`, with the pairs of each video.
        rules: the benchmark's rules.

    Returns:
        A cost per kind, in the order of `KINDS`.
    """
    tracks = ground_truth.tracks
    objects = _Objects(
        categories=np.zeros(len(tracks), np.int64),
        counted=np.zeros(len(tracks), bool),
        several=np.array([track.crowd for track in tracks], bool),
        findable=np.array([track.id != 0 or rules.strict for track in tracks], bool),
    )
    parts = []
    for part in matches:
        objects.categories[part.ground_truths] = part.ground_truth_categories
        objects.counted[part.ground_truths] = ~part.ground_truth_ignored[0]
        parts.append(_judge(part))
    outcomes = _Outcomes(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})
    before = _ap50(ground_truth, objects, outcomes, rules)
    after = {kind: _ap50(ground_truth, *_mend(objects, outcomes, kind), rules) for kind in KINDS}
    return {kind: ap50 - before for kind, ap50 in after.items()}


def _judge(matches: Matches) -> _Outcomes:
    matched = matches.matched[0, 0]
    g, p = matches.pairs.T
    near = (matched[p] == _NONE) & ~matches.ground_truth_ignored[0, g] & (matches.ious > 0)
    same = matches.ground_truth_categories[g] == matches.prediction_categories[p]
    other_iou, other = _best(matches, near & ~same)
    own_iou, own = _best(matches, near & same)
    tests = {
        "classification": other_iou >= _HALF,
        "duplicate": own_iou >= _HALF,
        "tracking": matches.followed >= _MOST,
        "localisation": own_iou >= _NEAR,
    }
    aims_by_kind = {"classification": other, "tracking": own, "localisation": own}
    wrong = np.select(list(tests.values()), [KINDS.index(kind) for kind in tests], KINDS.index("background"))
    kinds = np.where(matched == _NONE, wrong, _NONE)
    aims = np.select([kinds == KINDS.index(kind) for kind in aims_by_kind], list(aims_by_kind.values()), _NONE)
    positions = np.append(matches.ground_truths, _NONE)  # row -1 is none
    return _Outcomes(
        categories=matches.prediction_categories,
        scores=matches.scores,
        matched=positions[matched],
        kinds=kinds,
        aims=positions[aims],
    )


def _best(matches: Matches, which: Bool[np.ndarray, "P"]) -> tuple[Float64[np.ndarray, "D"], Int64[np.ndarray, "D"]]:
    """Returns each prediction's largest IoU among some pairs, and the object, of equal ones the later; 0 and -1."""
    (g, p), ious = matches.pairs[which].T, matches.ious[which]
    order = np.lexsort((g, ious))
    best, objects = np.zeros(len(matches.scores)), np.full(len(matches.scores), _NONE)
    best[p[order]], objects[p[order]] = ious[order], g[order]  # the last one stays
    return best, objects


def _mend(objects: _Objects, outcomes: _Outcomes, kind: str) -> tuple[_Objects, _Outcomes]:
    """Returns objects and predictions without the errors of a kind."""
    rows = np.arange(len(objects.counted))
    taken = np.isin(rows, outcomes.matched)
    if kind == "missed":
        return replace(objects, counted=objects.counted & (taken | np.isin(rows, outcomes.aims))), outcomes
    wrong = outcomes.kinds == KINDS.index(kind)
    right = _winners(objects, outcomes, wrong, objects.findable & (objects.several | ~taken))
    categories, matched = outcomes.categories.copy(), outcomes.matched.copy()
    matched[right] = outcomes.aims[right]
    categories[right] = objects.categories[matched[right]]
    mended = replace(outcomes, categories=categories, matched=matched)
    return objects, _Outcomes(**{name: values[~wrong | right] for name, values in vars(mended).items()})


def _winners(
    objects: _Objects, outcomes: _Outcomes, wrong: Bool[np.ndarray, "D"], free: Bool[np.ndarray, "N"]
) -> Bool[np.ndarray, "D"]:
    """Returns which wrong predictions get the free objects that they aim at: the best of each, or several."""
    able = np.flatnonzero(wrong & (outcomes.aims != _NONE))
    able = able[free[outcomes.aims[able]]]
    able = able[np.argsort(-outcomes.scores[able], kind="stable")]
    wins = objects.several[outcomes.aims[able]]
    wins[np.unique(outcomes.aims[able], return_index=True)[1]] = True
    winners = np.zeros(len(wrong), bool)
    winners[able[wins]] = True
    return winners


def _ap50(ground_truth: GroundTruth, objects: _Objects, outcomes: _Outcomes, rules: ApRules) -> float:
    """Returns AP50; 1 if no object counts."""
    matched = np.full((len(AREAS), len(THRESHOLDS), len(outcomes.scores)), _NONE)
    matched[0, 0] = outcomes.matched
    ignored = np.ones((len(AREAS), len(objects.counted)), bool)  # all but one area range are empty, which saves time
    ignored[0] = ~objects.counted
    matches = Matches(
        ground_truths=np.arange(len(objects.counted)),
        ground_truth_categories=objects.categories,
        ground_truth_ignored=ignored,
        predictions=np.arange(len(outcomes.scores)),
        prediction_categories=outcomes.categories,
        scores=outcomes.scores,
        ranks=np.zeros(len(outcomes.scores), np.int64),
        out_of_range=np.zeros((len(AREAS), len(outcomes.scores)), bool),
        matched=matched,
        pairs=np.zeros((0, 2), np.int64),
        ious=np.zeros(0),
        followed=np.zeros(len(outcomes.scores)),
    )
    precision, _ = cells(ground_truth, [matches], rules)
    present = precision[:, 0, 0][precision[:, 0, 0] > EMPTY_MEAN]
    return float(present.mean()) if present.size else 1.0
