"""Files in the format of COCO's and LVIS' instance annotations: still images, read as videos of one frame.

images         id, width, height, file_name; those of LVIS `coco_url` instead, of which the last folder and the name
               count, and `neg_category_ids` and `not_exhaustive_category_ids`
categories     id, name
annotations    id, image_id, category_id, iscrowd, area in pixels, and `segmentation`: polygons, or compressed or plain
               run lengths
"""

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pipelines.datasets.annotations import AnnotatedTrack, AnnotatedVideo, Category, GroundTruth, Id
from pipelines.datasets.documents import Document, read_document
from pipelines.datasets.ytvis import annotation_id, read_annotations, read_federation
from pipelines.datasets.ytvis_entries import EntryReader, is_id


def read_ground_truth(path: str, *, problems: list[str] | None = None) -> GroundTruth:
    """Reads annotated images; each is a video of one frame under the image's id, and each annotation a track.

    Args:
        path: the file.
        problems: list that collects the errors of single entries, which are then left out; None raises the first.
            Annotations are only checked if images and categories are sound.

    Raises:
        ValueError: names the file, the image or annotation, the value and the remedy.
    """

    def read(document: Document) -> GroundTruth:
        reader = _Reader(path, True, problems if document.plain else None, document.lifted)
        return read_annotations("image", reader, document, _read_image, _read_annotation)

    return read_document(path, read, every_error=problems is not None)


class _Reader(EntryReader):
    """Accepts the ids that pycocotools accepts, also texts and fractions."""

    def id(self, where: str, entry: Any, name: str) -> Id:
        """Returns an id."""
        value: Id = self.value(where, entry, name, object)
        if not is_id(value):
            raise self.error(where, f"has {name!r} {value!r:.60}", "give a whole number")
        return value


def _read_image(
    reader: EntryReader, numbers: Mapping[Id, int], categories: Mapping[Id, int], index: int, entry: Any
) -> AnnotatedVideo:
    stated = reader.id(f"image entry {index}", entry, "id")
    number = numbers[stated]
    where = f"image {number}"
    sides = {name: reader.value(where, entry, name, int) for name in ("height", "width")}
    if min(sides.values()) < 1:
        raise reader.error(where, f"is {sides['height']} x {sides['width']}", "give height and width in pixels")
    return AnnotatedVideo(
        id=number,
        **sides,
        length=1,
        file_names=(_file_name(reader, where, entry),),
        federation=read_federation(reader, where, entry, categories),
        stated_id=None if number == stated else stated,
    )


def _file_name(reader: EntryReader, where: str, entry: Any) -> str:
    if "file_name" in entry or "coco_url" not in entry:
        name: str = reader.value(where, entry, "file_name", str)
        return name
    url = reader.value(where, entry, "coco_url", str)
    folder, _, name = urlsplit(url).path.lstrip("/").rpartition("/")
    if not folder or not name:
        raise reader.error(where, f"has 'coco_url' {url!r:.90}", "give an address that ends in a folder and a name")
    return f"{folder.rpartition('/')[2]}/{name}"


def _read_annotation(
    reader: EntryReader,
    images: Mapping[Id, AnnotatedVideo],
    categories: Mapping[Id, Category],
    index: int,
    entry: Any,
) -> AnnotatedTrack:
    number = annotation_id(reader, f"annotation entry {index}", entry)
    where = f"annotation {number}"
    image_id, category_id = (reader.id(where, entry, name) for name in ("image_id", "category_id"))
    for name, value, known in (("image_id", image_id, images.keys()), ("category_id", category_id, categories.keys())):
        if value not in known:
            raise reader.error(where, f"has {name!r} {value!r:.60}, which is not in the file", "add it or remove it")
    area = reader.value(where, entry, "area", float)
    if area < 0 or math.isinf(area):  # pycocotools would pass over it without a word; one that is not a number counts
        raise reader.error(where, f"has the area {area}", "give pixels")
    crowd = entry.get("iscrowd", 0)
    if type(crowd) not in (int, bool, float) or crowd not in (0, 1):  # to pycocotools, 2 is a crowd
        raise reader.error(where, f"has iscrowd {crowd!r}", "give 0 or 1")
    if "segmentation" not in entry:
        raise reader.error(where, "has no 'segmentation'", "give instance annotations, not boxes alone")
    return AnnotatedTrack(
        id=number,
        video_id=images[image_id].id,
        category_id=categories[category_id].id,
        masks=reader.masks(where, {"segmentations": [entry["segmentation"]]}, images[image_id], polygons=True),
        areas=(area,),
        crowd=bool(crowd),
    )
