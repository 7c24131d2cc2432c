from pathlib import Path
from typing import Any

import pytest

from pipelines.datasets.annotations import AnnotatedVideo, Category
from pipelines.datasets.benchmark_videos import category_ids, find_benchmark_videos
from tests.pipelines.video.clips import write_images


def video(**values: Any) -> AnnotatedVideo:
    return AnnotatedVideo(**({"id": 1, "height": 96, "width": 128, "length": 2} | values))


def test_encoded_files_and_folders_of_images_are_found(tmp_path: Path) -> None:
    write_images(tmp_path / "b", 12)
    (tmp_path / "a.mp4").touch()
    images = video(id=2, file_names=("b/frame_2.png", "b/frame_10.png"))
    found = find_benchmark_videos([video(video="a.mp4"), images], str(tmp_path))
    assert [each.uri for each in found] == [str(tmp_path / "a.mp4"), str(tmp_path / "b")]
    assert [dict(each.positions) for each in found] == [{0: 0, 1: 1}, {2: 0, 10: 1}]
    assert [each.frames for each in found] == [2, 11]
    assert [each.encoded for each in found] == [True, False]


def test_videos_whose_images_share_a_folder_are_named(tmp_path: Path) -> None:
    """The folder would be labelled whole for each, with tracks across frames of the other."""
    write_images(tmp_path / "b", 4)
    first, second = (
        video(id=number, file_names=(f"b/frame_{number}.png", f"b/frame_{number + 2}.png")) for number in (0, 1)
    )
    with pytest.raises(ValueError, match="videos: 0 and 1 both have their frames in .*b; give each its own"):
        find_benchmark_videos([first, second], str(tmp_path))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"video": "a.mp4"}, "a.mp4 is missing, video 1"),
        ({"file_names": ("c/1.png",)}, "c is missing, video 1"),
        ({"file_names": ("b/frame_7.png", "b/frame_8.png")}, "lacks frame_7.png and 1 more"),
        ({"file_names": ("b/frame_0.png",)}, "video 1 has length 2 and 1 file_names; give one per frame"),
        ({"file_names": ("b/frame_1.png", "b/frame_1.png")}, "video 1 has frame_1.png more than once"),
        ({"file_names": ("b/frame_0.png", "c/frame_0.png")}, "frames in 2 folders"),
    ],
)
def test_videos_that_are_not_there_are_named(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_images(tmp_path / "b", 3)
    with pytest.raises(ValueError, match=message):
        find_benchmark_videos([video(**values)], str(tmp_path))


def test_category_names_become_those_of_a_vocabulary() -> None:
    categories = [Category(id=5, name="traffic_light"), Category(id=2, name="Polo  shirt")]
    assert category_ids(categories) == {"traffic light": 5, "Polo shirt": 2}
    with pytest.raises(ValueError, match="5 and 9 are both 'traffic light'"):
        category_ids([*categories, Category(id=9, name="traffic light")])
    with pytest.raises(ValueError, match="9 has no name"):
        category_ids([Category(id=9, name=" _ ")])
    with pytest.raises(ValueError, match="there are none"):
        category_ids([])


def test_category_names_are_neither_comments_nor_synonyms_nor_slips() -> None:
    ids = {"#red triangle": 0, "lamp, street": 1, "Polo": 2, "polo": 3}
    assert category_ids([Category(id=number, name=name) for name, number in ids.items()]) == ids


def test_a_video_of_unknown_length_is_named() -> None:
    with pytest.raises(ValueError, match="video 1 has neither length nor file_names"):
        find_benchmark_videos([video(length=None, video="a.mp4")], "/videos")
