import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets import ytvis
from pipelines.datasets.annotations import GroundTruth, Mask, PredictedTrack
from pipelines.evaluation.score import Score, score, score_tracks
from pipelines.metrics.errors import KINDS
from pipelines.shapes.files import write_split
from pipelines.shapes.scenes import SceneConfig
from tests.pipelines.evaluation.few_categories import leave_out_categories
from tests.pipelines.metrics.burst_cases import CUP, FAR, FIRST, Files, Track, one

FIXTURES = os.environ.get("OPENVIS_EVAL_FIXTURES")  # a folder of official ground truths, predictions and numbers
FILES = sorted(Path(FIXTURES).glob("*/*/expected.json")) if FIXTURES else []


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    """Three videos of 8 frames with base and novel categories, and a few categories more than they show."""
    split = write_split(tmp_path_factory.mktemp("shapes"), "valid", 3, 0, SceneConfig(frames=8))
    return ytvis.read_ground_truth(str(leave_out_categories(split.path / "instances.json")), strict=True)


def perfect(truth: GroundTruth) -> list[PredictedTrack]:
    return [
        PredictedTrack(video_id=track.video_id, category_id=track.category_id, score=1 - i / 100, masks=track.masks)
        for i, track in enumerate(truth.tracks)
    ]


def edited(truth: GroundTruth, folder: Path, edit: Callable[[dict[str, Any]], None]) -> str:
    """The file of a ground truth after a change to its content."""
    document = json.loads(Path(truth.path).read_text())
    edit(document)
    file = folder / "truth.json"
    file.write_text(json.dumps(document))
    return str(file)


def first_id_0(document: dict[str, Any]) -> None:
    document["annotations"][0]["id"] = 0


def only_objects(document: dict[str, Any]) -> None:
    document["categories"] = [{"id": 1, "name": "object"}]
    for annotation in document["annotations"]:
        annotation["category_id"] = 1


def scored(
    truth: GroundTruth, tracks: list[PredictedTrack], folder: Path, protocol: str = "ytvis", file: str = ""
) -> Score:
    ytvis.write_predictions(folder / "predictions.json", tracks)
    return score(protocol, file or truth.path, str(folder / "predictions.json"))  # type: ignore[arg-type]


def test_perfect_predictions_are_perfect_by_all_rules(truth: GroundTruth, tmp_path: Path) -> None:
    for protocol in ("ytvis", "lvvis", "uvo"):
        result = scored(truth, perfect(truth), tmp_path, protocol=protocol)
        assert result.numbers["AP"] == pytest.approx(1)
        assert result.numbers["AR100"] == 1
        assert set(result.errors.values()) == {0}
        assert (result.refusal, result.differing(), dict(result.warnings)) == (None, {}, {})
        assert result.about["ground_truth_sha256"] == truth.sha256
    numbers, errors = score_tracks("lvvis", truth, perfect(truth))
    assert numbers == scored(truth, perfect(truth), tmp_path, protocol="lvvis").numbers
    assert sum(errors.values()) == 0


def test_shapes_has_its_own_numbers(truth: GroundTruth, tmp_path: Path) -> None:
    result = scored(truth, perfect(truth), tmp_path, protocol="shapes")
    ones = ("AP", "base/AP", "micro/AP", "top1", "top1/colour", "matched", "agnostic/AP", "agnostic/AR10", "oracle/AP")
    assert [result.numbers[name] for name in ones] == pytest.approx([1] * len(ones))
    assert (result.numbers["permuted/AP"], result.numbers["permuted/top1"], result.numbers["novel/AP"]) == (0, 0, -1)
    for name in ("AP", "base/AP", "micro/AP", "top1", "agnostic/AP"):
        assert [result.numbers[f"{end}/{name}"] for end in ("low", "high")] == pytest.approx([1, 1])
    assert (result.numbers["low/novel/AP"], result.numbers["high/novel/AP"]) == (-1, -1)
    assert (result.strict, set(result.errors.values())) == (result.numbers, {0})
    assert result.about["ground_truth_sha256"] == truth.sha256
    numbers, errors = score_tracks("shapes", truth, perfect(truth), threads=2)
    assert (numbers, errors) == (result.numbers, result.errors)


def test_shapes_is_strict_in_any_case(truth: GroundTruth, tmp_path: Path) -> None:
    short, unlisted = perfect(truth), perfect(truth)
    short[0] = replace(short[0], masks=short[0].masks[:3])
    unlisted[0] = replace(unlisted[0], category_id=1001)
    for tracks in (short, unlisted):
        with pytest.raises(ValueError, match="predictions.json.*entry 0"):
            scored(truth, tracks, tmp_path, protocol="shapes")
    zero = edited(truth, tmp_path, first_id_0)
    result = scored(truth, perfect(truth), tmp_path, protocol="shapes", file=zero)
    assert result.numbers["AP"] == pytest.approx(1)
    assert (result.differing(), dict(result.warnings)) == ({}, {})


def test_uvo_leaves_categories_aside(truth: GroundTruth, tmp_path: Path) -> None:
    ids = [category.id for category in truth.categories]
    other = dict(zip(ids, [*ids[1:], ids[0]], strict=True))
    wrong = [replace(track, category_id=other[track.category_id]) for track in perfect(truth)]
    result = scored(truth, wrong, tmp_path, protocol="uvo")
    assert result.numbers["AP"] == pytest.approx(1)
    assert result.numbers["with_categories/AP"] < 0.5


def test_uvo_takes_any_category_where_all_are_replaced(truth: GroundTruth, tmp_path: Path) -> None:
    """Not odd, so that strict rules do not refuse it."""
    file = edited(truth, tmp_path, only_objects)
    result = scored(truth, perfect(truth), tmp_path, protocol="uvo", file=file)
    assert result.numbers["AP"] == pytest.approx(1)
    assert (result.refusal, result.differing(), dict(result.warnings)) == (None, {}, {})
    assert scored(truth, perfect(truth), tmp_path, file=file).refusal is not None


def test_burst_has_costs_of_errors(tmp_path: Path) -> None:
    """Wrong before right: AP50 is 1/2, and 1 without the wrong one."""
    wrong = Track(CUP, [FAR, FAR], 0.9)
    truth, predictions = Files(tmp_path)(*one([Track(CUP, [FIRST, FIRST])], [wrong, Track(CUP, [FIRST, FIRST], 0.8)]))
    result = score("burst", truth.path, predictions.path)
    assert result.numbers["class_guided/AP/all"] == pytest.approx(50)
    assert result.errors == pytest.approx(dict.fromkeys(KINDS, 0) | {"background": 1 / 2})


@pytest.mark.parametrize("unlisted", [False, True])
def test_a_corrupt_mask_is_named(truth: GroundTruth, tmp_path: Path, unlisted: bool) -> None:
    """Whether or not scoring reads it."""
    corrupt = perfect(truth)
    masks = [*corrupt[2].masks[:-1], Mask(truth.videos[0].height, truth.videos[0].width, b"0")]
    category = 999_999 if unlisted else corrupt[2].category_id
    corrupt[2] = replace(corrupt[2], masks=tuple(masks), category_id=category)
    with pytest.raises(ValueError, match=rf"predictions.json: entry 2, frame {len(masks) - 1}, counts must be runs"):
        scored(truth, corrupt, tmp_path)


def test_what_strict_rules_refuse_is_told(truth: GroundTruth, tmp_path: Path) -> None:
    short = perfect(truth)
    short[0] = replace(short[0], masks=short[0].masks[:3])
    result = scored(truth, short, tmp_path)
    assert result.strict is None
    assert result.refusal is not None
    assert "entry 0" in result.refusal
    assert sum(result.warnings.values()) == 1


def test_an_object_with_id_0_is_found_by_strict_rules_alone(truth: GroundTruth, tmp_path: Path) -> None:
    result = scored(truth, perfect(truth), tmp_path, file=edited(truth, tmp_path, first_id_0))
    assert result.strict is not None
    official, strict = result.differing()[f"AP/cat/{truth.tracks[0].category_id}"]
    assert official < strict == pytest.approx(1)


def test_the_file_has_flat_names(truth: GroundTruth, tmp_path: Path) -> None:
    result = scored(truth, perfect(truth), tmp_path, protocol="lvvis")
    result.write(str(tmp_path / "metrics.json"))
    stored = json.loads((tmp_path / "metrics.json").read_text())
    about = stored.pop("score")
    assert stored == result.numbers
    assert {"AP", "AP50/cat/1", "mAP_base", "novel/AR10"} <= stored.keys()
    assert (about["protocol"], about["refusal"], about["strict"]) == ("lvvis", None, {})
    with pytest.raises(ValueError, match="output: cannot write /proc/no/metrics.json"):
        result.write("/proc/no/metrics.json")


def test_unknown_protocols_are_refused(as_user: None) -> None:
    with pytest.raises(ValueError, match="'coco'; choose one of ytvis, lvvis, uvo, burst, shapes"):
        score("coco", "a", "b")  # type: ignore[arg-type]


if FILES:

    @pytest.mark.parametrize("file", FILES, ids=lambda file: "/".join(file.parts[-3:-1]))
    def test_official_numbers(file: Path) -> None:
        """Every number that the official tools gave, but those of other tools and settings that a file also has."""
        protocol = file.parts[-3]
        truth = file.parent / ("gt/all_classes.json" if protocol == "burst" else "gt.json")
        numbers = score(protocol, str(truth), str(file.parent / "predictions.json")).numbers  # type: ignore[arg-type]
        others = ("trackeval/", "unforced/", "useCats1/", "maxDets_", "agnostic/")
        expected = {name: value for name, value in json.loads(file.read_text()).items() if not name.startswith(others)}
        assert expected
        assert {name: numbers[name] for name in expected} == pytest.approx(expected, abs=1e-6)
