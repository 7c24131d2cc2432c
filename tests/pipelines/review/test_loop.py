"""The whole way: labels are reviewed on the page and trained on, and the model then names better."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from pycocotools import mask as coco

import jobs.train
from pipelines.archive.tables import Results
from pipelines.datasets.annotations import AnnotatedTrack, AnnotatedVideo, Category, GroundTruth, Mask, PredictedTrack
from pipelines.labelling.config import LabelConfig
from pipelines.labelling.run import label_videos
from pipelines.metrics.rules import OPEN_VOCABULARY
from pipelines.metrics.video_ap import video_ap
from pipelines.review.config import ReviewConfig
from pipelines.review.session import Review
from pipelines.shapes.categories import CATEGORIES
from pipelines.shapes.files import encode_video
from pipelines.shapes.render import Clip, draw
from pipelines.shapes.scenes import SceneConfig, invent_scene
from pipelines.storage.files import Storage
from tests.pipelines.review.browser import browser, needs_browser
from tests.pipelines.review.serving import Client, served

pytestmark = [needs_browser, pytest.mark.nightly, pytest.mark.usefixtures("cluster")]

NAMES = ("red striped star", "green plain moon", "blue dotted heart", "yellow checkered ring")
MEANT = {NAMES[0]: NAMES[1], NAMES[1]: NAMES[0], NAMES[2]: NAMES[2], NAMES[3]: NAMES[3]}
"""What people call an object, by its name in Shapes: two names mean something else to them than to the model."""

IDS = {name: number for number, name in enumerate(NAMES, start=1)}
SCENE = SceneConfig(frames=16)

OPTIONS = ["--config", "jobs/configs/mini/reviewed.yaml", "--threads", "1"]


def write_videos(folder: Path, count: int, seed: int) -> dict[str, Clip]:
    """Videos with objects of the four categories only, by id."""
    folder.mkdir(parents=True)
    index = {category.name: number for number, category in enumerate(CATEGORIES)}
    rng, clips = np.random.default_rng(seed), {}
    for number in range(count):
        actors = [
            replace(actor, category=index[NAMES[int(rng.integers(len(NAMES)))]])
            for actor in invent_scene(SCENE, "novel", rng)
        ]
        ground = np.full((SCENE.height, SCENE.width, 3), 110 + 10 * (number % 5), np.float32)
        clips[f"{number}.mp4"] = clip = draw(ground, actors)
        encode_video(folder / f"{number}.mp4", clip.frames, SCENE.fps)
    return clips


def label(folder: Path, output: Path, checkpoint: str | None) -> Results:
    (folder.parent / "names.txt").write_text("\n".join(NAMES))
    config = LabelConfig(
        input=str(folder), output=str(output), vocabulary=str(folder.parent / "names.txt"), checkpoint=checkpoint
    )
    assert label_videos(config).failures == {}
    return Results(Storage(str(output)))


def masks_of(results: Results, names: Mapping[str, str]) -> dict[tuple[str, int], list[Mask | None]]:
    """The masks of each track, a place per frame, by the name of its video's file."""
    found: dict[tuple[str, int], list[Mask | None]] = {}
    for row in results.read("masks").to_pylist():
        track = found.setdefault((names[row["video_id"]], row["track_id"]), [None] * SCENE.frames)
        track[row["frame"]] = Mask(*row["rle"]["size"], row["rle"]["counts"].encode())
    return found


def file_names(results: Results) -> dict[str, str]:
    return {row["video_id"]: Path(row["uri"]).name for row in results.read("videos").to_pylist()}


def dense(masks: list[Mask | None]) -> np.ndarray:
    """As an array [T, H, W]."""
    empty = np.zeros((SCENE.height, SCENE.width), np.uint8)
    shown = [coco.decode({"size": mask[:2], "counts": mask.counts}) if mask else empty for mask in masks]
    return np.stack(shown).astype(bool)


def truth_of(masks: list[Mask | None], clip: Clip) -> str | None:
    """What people call the object that a track shows most of; None if it shows none."""
    found = dense(masks)
    overlaps = [(found & one).sum() / (found | one).sum() for one in clip.masks]
    best = int(np.argmax(overlaps))
    return MEANT[CATEGORIES[clip.categories[best]].name] if overlaps[best] > 0.25 else None


def average_precision(results: Results, clips: Mapping[str, Clip]) -> float:
    """AP over the four categories as people call them."""
    numbers = {name: number for number, name in enumerate(clips, start=1)}
    size: dict[str, Any] = {"height": SCENE.height, "width": SCENE.width}
    videos = tuple(AnnotatedVideo(id=number, length=SCENE.frames, **size) for number in numbers.values())
    objects = []
    for name, clip in clips.items():
        for category, shown in zip(clip.categories, clip.masks, strict=True):
            encoded = [coco.encode(np.asfortranarray(frame.astype(np.uint8))) for frame in shown]
            masks = [
                Mask(SCENE.height, SCENE.width, rle["counts"]) if frame.any() else None
                for rle, frame in zip(encoded, shown, strict=True)
            ]
            about = {"id": len(objects) + 1, "video_id": numbers[name], "areas": (None,) * SCENE.frames}
            meant = IDS[MEANT[CATEGORIES[category].name]]
            objects.append(AnnotatedTrack(category_id=meant, masks=masks, **about))  # type: ignore[arg-type]
    truth = GroundTruth(
        path="held out",
        sha256="",
        videos=videos,
        categories=tuple(Category(id=number, name=name, partition=3) for name, number in IDS.items()),
        tracks=tuple(objects),
    )
    names = file_names(results)
    masks_by_track = masks_of(results, names)
    predictions = [
        PredictedTrack(
            video_id=numbers[names[row["video_id"]]],
            category_id=IDS[each["category"]],
            score=each["score"],
            masks=masks_by_track[names[row["video_id"]], row["track_id"]],
        )
        for row in results.read("tracks").to_pylist()
        for each in row["top"]
    ]
    return video_ap(truth, predictions, OPEN_VOCABULARY)["AP"]


def review_all(page: Page, client: Client, judgement: Mapping[tuple[str, int], str | None]) -> None:
    """Judges each track on the page, as a person does who knows the truth."""
    found = client.get("api/find", order="video").json()
    rows = client.get("api/rows", found=found["found"], offset=0, limit=500).json()
    page.goto(f"{client.url}#order=video")
    expect(page.locator("#card-0 .name")).to_have_text(rows[0]["category"])
    page.locator(".grid").focus()
    page.keyboard.press("Home")
    for index, row in enumerate(rows):
        card = page.locator(f"#card-{index}")
        expect(card).to_have_attribute("aria-selected", "true")
        meant = judgement[row["video_id"], row["track_id"]]
        if meant is None or meant == row["category"]:
            page.keyboard.press("r" if meant is None else "a")
        else:
            page.keyboard.press("n")
            page.get_by_role("dialog").get_by_label("Category").fill(meant)
            page.keyboard.press("Enter")
            page.locator(".grid").focus()
            page.keyboard.press("ArrowRight")
        expect(card.locator(".badge")).to_be_visible()


def test_reviewed_labels_make_a_better_model(tmp_path: Path) -> None:
    clips, held_out = write_videos(tmp_path / "videos", 16, 1), write_videos(tmp_path / "held_out", 8, 2)
    before = average_precision(label(tmp_path / "held_out", tmp_path / "before", None), held_out)

    results = label(tmp_path / "videos", tmp_path / "labels", None)
    names = file_names(results)
    masks = masks_of(results, names)
    judgement = {
        (video_id, track): truth_of(shown, clips[file])
        for video_id, file in names.items()
        for (name, track), shown in masks.items()
        if name == file
    }
    with served(Review(ReviewConfig(labels=results.storage.root))) as client, browser() as chromium:
        review_all(chromium.new_page(), client, judgement)

    data, output = ("--stage_1.data.annotations", results.storage.root), ("--output", str(tmp_path / "run"))
    assert jobs.train.main([*OPTIONS, *data, *output]) == 0
    after_labels = label(tmp_path / "held_out", tmp_path / "after", str(tmp_path / "run" / "model"))
    assert average_precision(after_labels, held_out) > before + 0.04
