from pathlib import Path

import numpy as np
import pytest
import supervision as sv
import yaml
from PIL import Image

from pipelines.archive.export import ExportSummary
from pipelines.archive.formats.yolo import HOLES, PARTS
from pipelines.archive.tables import Results
from pipelines.storage.files import Storage
from tests.pipelines.archive.exports import HEIGHT, SEEN, WIDTH, dense, export, put
from tests.pipelines.archive.labels import part_name


def read(folder: Path, video: str) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Names and masks of each frame of a video, as supervision reads them."""
    for line in (folder / "images.txt").read_text().splitlines():
        image = folder / line
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(image)
    data = sv.DetectionDataset.from_yolo(
        str(folder / "images" / video), str(folder / "labels" / video), str(folder / "data.yaml")
    )
    return {
        Path(path).stem: [(data.classes[number], mask) for number, mask in zip(seen.class_id, seen.mask, strict=True)]
        for path, seen in data.annotations.items()
    }


@pytest.mark.parametrize("video", ["a", "b-2"])
def test_yolo_is_read_by_supervision(labels: str, tmp_path: Path, video: str) -> None:
    assert export(labels, tmp_path / "out", "yolo") == ExportSummary(videos=2, tracks=4)
    found = read(tmp_path / "out", video)
    frames = {frame for _, _, frames in SEEN[video].values() for frame in frames}
    assert set(found) == {f"{frame:06d}" for frame in frames}
    for frame in frames:
        expected = {name: dense(track, frame) for track, (name, _, seen) in SEEN[video].items() if frame in seen}
        masks = dict(found[f"{frame:06d}"])
        assert masks.keys() == expected.keys()
        assert all((masks[name] == mask).all() for name, mask in expected.items())


def test_ultralytics_finds_images_and_polygons_by_its_rules(labels: str, tmp_path: Path) -> None:
    """Paths in a list begin with ./ for its folder; /images/ becomes /labels/; a row is a class and three corners."""
    export(labels, tmp_path / "out", "yolo")
    about = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert about == {"train": "images.txt", "val": "images.txt", "names": {0: "moon", 1: "ring & disc", 2: "star"}}
    images = (tmp_path / "out/images.txt").read_text().splitlines()
    texts = [line.replace("./images/", "labels/").replace(".jpg", ".txt") for line in images]
    assert sorted(texts) == sorted(str(f.relative_to(tmp_path / "out")) for f in (tmp_path / "out").rglob("*/*/*.txt"))
    for text in texts:
        for line in (tmp_path / "out" / text).read_text().splitlines():
            number, *shares = line.split()
            assert int(number) in about["names"]
            assert len(shares) >= 6
            assert not len(shares) % 2
            assert all(0 <= float(share) <= 1 for share in shares)


def test_what_a_polygon_cannot_hold_is_told(tmp_path: Path) -> None:
    results = Results(Storage(str(tmp_path / "labels")))
    ring = np.ones((HEIGHT, WIDTH), np.uint8)
    ring[2:4, 2:4] = 0
    two = np.zeros((HEIGHT, WIDTH), np.uint8)
    two[0, 0] = two[5, 7] = 1
    dot = np.zeros((HEIGHT, WIDTH), np.uint8)
    dot[2, 7] = 1
    shapes = {0: ring, 1: two, 2: dot}
    tracks = {track: (name, 0.5, (0,)) for track, name in enumerate(("ring", "two", "dot"))}
    put(results, part_name(1), {"a": tracks}, draw=lambda track, frame: shapes[track])
    assert export(results.storage.root, tmp_path / "out", "yolo").losses == (
        f"{PARTS}: 1 track (a/1)",
        f"{HOLES}: 1 track (a/0)",
    )
    masks = dict(read(tmp_path / "out", "a")["000000"])
    assert masks["ring"].all()
    assert masks["two"][0, 0]
    assert masks["two"][5, 7]
    assert masks["two"].sum() <= 9
    assert (masks["dot"] == dot).all()


def test_frames_of_an_earlier_export_do_not_stay(labels: str, tmp_path: Path) -> None:
    export(labels, tmp_path / "out", "yolo")
    assert (tmp_path / "out/labels/a/000009.txt").exists()
    export(labels, tmp_path / "out", "yolo", min_score=0.8)
    assert sorted(file.name for file in (tmp_path / "out").rglob("*/*/*.txt")) == [
        "000000.txt",
        "000003.txt",
        "000006.txt",
    ]
