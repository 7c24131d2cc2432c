"""Images that are dropped onto the page, and videos that a browser cannot play."""

import base64
import io
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from pipelines.archive.tables import Results
from pipelines.review.catalogue import Filter
from pipelines.review.config import ReviewConfig
from pipelines.review.session import Review
from pipelines.shapes.render import render
from pipelines.shapes.scenes import SceneConfig
from pipelines.storage.files import Storage
from tests.pipelines.archive.labels import part_name
from tests.pipelines.review.archives import put_video
from tests.pipelines.review.browser import ON_SCREEN, Open, choose, needs_browser, press, taken
from tests.pipelines.review.serving import served
from tests.pipelines.video.clips import H264, HEVC, write_clip

pytestmark = needs_browser

VP9 = {"g": "12", "cpu-used": "5"}

DROP = """([name, content]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([bytes], name, { type: "image/png" }));
    document.querySelector(".grid").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
}"""


def drop(page: Page, name: str, content: bytes) -> None:
    page.evaluate(DROP, [name, base64.b64encode(content).decode()])


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_dropped_image_is_an_example(visit: Open, review: Review) -> None:
    image = png(render(SceneConfig(frames=2), "novel", 0, 1).frames[0])
    page = visit()
    drop(page, "<b>example</b>.png", image)
    expect(page.locator(".chip")).to_contain_text("similar to <b>example</b>.png")
    expect(page.locator("#card-0 .about")).to_contain_text("≈")
    expected = review.rows(review.find_like_image(Filter(), image)["found"], 0, 10)
    expect(page.locator(".card .name")).to_have_text([row["category"] for row in expected])
    drop(page, "flat.png", png(np.full((96, 128, 3), 128, np.uint8)))
    expect(page.locator(".notice")).to_have_text("image: shows no object; crop it more closely, or choose another")
    drop(page, "notes.txt", b"no image")
    expect(page.locator(".notice")).to_contain_text("image: is not a readable picture")
    page.get_by_role("button", name="End the search").click()
    expect(page.locator(".chip")).to_have_count(0)


def test_the_same_image_is_chosen_twice(visit: Open) -> None:
    page = visit()
    image = png(render(SceneConfig(frames=2), "novel", 0, 1).frames[0])
    chooser = page.locator("input[type=file]")
    chooser.set_input_files({"name": "star.png", "mimeType": "image/png", "buffer": image})
    expect(page.locator(".chip")).to_contain_text("similar to star.png")
    expect(page.locator("#card-0 .about")).to_contain_text("≈")
    expect(chooser).to_have_value("")  # otherwise browsers tell nothing of the second time


@pytest.mark.parametrize(
    ("name", "options"), [("hevc.mp4", {"codec": "libx265", "options": HEVC}), ("stream.ts", {"options": H264})]
)
def test_frames_of_the_server_stand_in_for_a_video(
    chromium: Browser, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    write_clip(tmp_path / name, frames=16, fps=8, **options)
    results = Results(Storage(str(tmp_path / "labels")))
    times = [number / 8 for number in range(16)]
    put_video(results, part_name(1), name, str(tmp_path / name), {1: ("red striped star", 0.9, range(16))}, times)
    with served(Review(ReviewConfig(labels=results.storage.root))) as client:
        page = chromium.new_page()
        page.goto(client.url)
        choose(page, 0)
        press(page, "Enter")
        expect(page.locator(".stage .hint")).to_contain_text("frames by the server")
        expect(page.locator(".masks[data-frame='0']")).to_be_visible()
        page.route(re.compile(r"api/frame\?.*frame=2(&|$)"), lambda route: route.abort())
        press(page, ".", ".")
        expect(page.locator(".stage .missing")).to_have_text("the frame cannot be shown")
        press(page, ".")
        expect(page.locator(".masks[data-frame='3']")).to_be_visible()
        expect(page.locator(".stage .missing")).to_have_count(0)
        page.wait_for_function("() => document.querySelector('.stage img').complete")
        assert page.evaluate(ON_SCREEN.replace(".stage video", ".stage img")) == [3, 3]
        page.close()


def test_masks_wait_for_the_frames_of_the_server(visit: Open) -> None:
    """So does playing."""
    page, held, asked = visit(), list[Route](), list[str]()
    choose(page, 2)
    press(page, "Enter")
    expect(page.locator(".masks[data-frame='0']")).to_be_visible()
    page.on("request", lambda request: asked.append(request.url) if "api/frame" in request.url else None)
    page.route(re.compile(r"api/frame\?.*frame=4(&|$)"), lambda route: held.append(route))
    press(page, " ")
    route = taken(page, held)
    page.wait_for_timeout(1500)
    assert page.evaluate(ON_SCREEN.replace(".stage video", ".stage img")) == [0, 0]
    expect(page.locator(".player")).to_contain_text("0:00.00")
    assert len(asked) == 1
    route.continue_()
    for frame in (4, 8, 12):
        expect(page.locator(".masks")).to_have_attribute("data-frame", str(frame))
        assert page.evaluate(ON_SCREEN.replace(".stage video", ".stage img")) == [frame, frame]
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_a_step_out_of_a_gap_leads_to_its_ends(chromium: Browser, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=48, fps=8, options=H264)
    results = Results(Storage(str(tmp_path / "labels")))
    tracks = {1: ("red striped star", 0.9, [0, 2, 4, 40, 42])}
    put_video(results, part_name(1), "a", str(tmp_path / "a.mp4"), tracks, [number / 8 for number in range(48)])
    with served(Review(ReviewConfig(labels=results.storage.root))) as client:
        page = chromium.new_page()
        page.goto(client.url)
        choose(page, 0)
        press(page, "Enter")
        expect(page.locator(".masks[data-frame='0']")).to_be_visible()
        for key, end in ((".", 40), (",", 4)):
            page.evaluate("document.querySelector('.stage video').currentTime = 20 / 8")
            expect(page.locator(".masks")).to_have_attribute("data-frame", "")
            press(page, key)
            expect(page.locator(".masks")).to_have_attribute("data-frame", str(end))
        page.close()


@pytest.mark.parametrize(
    ("name", "options"), [("late.mp4", {"options": H264}), ("late.webm", {"codec": "libvpx-vp9", "options": VP9})]
)
def test_a_later_track_of_a_file_that_begins_late_is_shown_from_its_first_frame(
    chromium: Browser, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    """The file's first frame is at 0.4 s, and the labels' times begin with it."""
    times = [Fraction(number, 10) for number in range(48)]
    write_clip(tmp_path / name, times=[Fraction(4, 10) + time for time in times], **options)
    results = Results(Storage(str(tmp_path / "labels")))
    tracks = {1: ("red striped star", 0.9, range(20, 48, 2))}
    put_video(results, part_name(1), name, str(tmp_path / name), tracks, list(map(float, times)))
    with served(Review(ReviewConfig(labels=results.storage.root))) as client:
        page = chromium.new_page()
        page.goto(client.url)
        choose(page, 0)
        press(page, "Enter")
        expect(page.locator(".masks")).to_have_attribute("data-frame", "20")
        page.wait_for_function("() => !document.querySelector('.stage video').seeking")
        assert page.evaluate(ON_SCREEN) == [20, 20]
        press(page, ".")
        expect(page.locator(".masks")).to_have_attribute("data-frame", "22")
        page.wait_for_function("() => !document.querySelector('.stage video').seeking")
        assert page.evaluate(ON_SCREEN) == [22, 22]
        page.close()


def test_masks_are_drawn_also_if_a_frame_is_there_at_once(chromium: Browser, review: Review) -> None:
    """On a busy machine the page's own work may come after the first frame."""
    with served(review) as client:
        page = chromium.new_page()
        page.add_init_script("const later = setTimeout; window.setTimeout = (act, ms = 0) => later(act, ms + 600);")
        page.goto(client.url)
        choose(page, 0)
        press(page, "Enter")
        expect(page.locator(".masks[data-frame='0']")).to_be_visible(timeout=15_000)
        page.close()
