"""Finds the files of annotated videos."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.datasets.annotations import AnnotatedVideo, Category
from pipelines.video.names import list_images


@dataclass(frozen=True, kw_only=True)
class BenchmarkVideo:
    """A video of a ground truth and its file.

    Attributes:
        id: id in the ground truth.
        uri: an encoded file, or a folder of images.
        positions: for each frame of the file its position in the ground truth, without frames that are not annotated.
        length: number of frames in the ground truth.
        encoded: whether it is an encoded file, which has to have as many frames.
    """

    id: int
    uri: str
    positions: Mapping[int, int]
    length: int
    encoded: bool = False

    @property
    def frames(self) -> int:
        """Number of frames of the file up to the last annotated one."""
        return max(self.positions, default=-1) + 1


def find_benchmark_videos(videos: Sequence[AnnotatedVideo], folder: str) -> list[BenchmarkVideo]:
    """Finds the videos of a ground truth: an encoded file if it names one, otherwise the folder of its images.

    Raises:
        ValueError: a video or one of its frames is missing, a frame occurs twice, or two videos have their images in
            one folder, which is labelled as one video; names the video and its path.
    """
    found = [_find(video, folder) for video in videos]
    of_folder: dict[str, int] = {}
    for video in found:
        if not video.encoded and (other := of_folder.setdefault(video.uri, video.id)) != video.id:
            raise ValueError(f"videos: {other} and {video.id} both have their frames in {video.uri}; give each its own")
    return found


def _find(video: AnnotatedVideo, folder: str) -> BenchmarkVideo:
    if video.length is None:
        raise ValueError(f"videos: video {video.id} has neither length nor file_names; add its number of frames")
    if video.video is not None:
        uri = os.path.abspath(os.path.join(folder, video.video))
        if not os.path.isfile(uri):
            raise ValueError(f"videos: {uri} is missing, video {video.id}; give the folder that has it")
        positions = {frame: frame for frame in range(video.length)}
        return BenchmarkVideo(id=video.id, uri=uri, positions=positions, length=video.length, encoded=True)
    parents = {os.path.dirname(name) for name in video.file_names}
    if len(parents) != 1:
        raise ValueError(f"videos: video {video.id} has frames in {len(parents)} folders; they need one of their own")
    uri = os.path.abspath(os.path.join(folder, parents.pop()))
    if not os.path.isdir(uri):
        raise ValueError(f"videos: {uri} is missing, video {video.id}; give the folder that has it")
    if len(video.file_names) != video.length:
        counts = f"length {video.length} and {len(video.file_names)} file_names"
        raise ValueError(f"videos: video {video.id} has {counts}; give one per frame")
    images = {name: index for index, name in enumerate(list_images(uri))}
    names = [os.path.basename(name) for name in video.file_names]
    missing = [name for name in names if name not in images]
    if missing:
        raise ValueError(f"videos: {uri} lacks {missing[0]} and {len(missing) - 1} more frames of video {video.id}")
    positions = {images[name]: position for position, name in enumerate(names)}
    if len(positions) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"videos: video {video.id} has {twice} more than once; give each frame its own image")
    return BenchmarkVideo(id=video.id, uri=uri, positions=positions, length=video.length)


def category_ids(categories: Sequence[Category]) -> dict[str, int]:
    """Returns category ids by name, as a vocabulary has them: underscores become blanks.

    Raises:
        ValueError: there is no category, one has no name, or two have the same.
    """
    if not categories:
        raise ValueError("categories: there are none; list those to look for")
    ids: dict[str, int] = {}
    for category in categories:
        name = " ".join(category.name.replace("_", " ").split())
        if not name:
            raise ValueError(f"categories: {category.id} has no name; give it one")
        if name in ids:
            raise ValueError(f"categories: {ids[name]} and {category.id} are both {name!r}; rename")
        ids[name] = category.id
    return ids
