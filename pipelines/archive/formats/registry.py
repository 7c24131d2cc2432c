"""The formats that labels are exported to: one module and one line each, and the name in `ExportConfig`."""

from collections.abc import Mapping

from pipelines.archive.formats.coco import write_coco
from pipelines.archive.formats.cvat import write_cvat
from pipelines.archive.formats.format import Format
from pipelines.archive.formats.huggingface import write_huggingface
from pipelines.archive.formats.label_studio import write_label_studio
from pipelines.archive.formats.mots import write_mots
from pipelines.archive.formats.rerun import write_rerun
from pipelines.archive.formats.yolo import write_yolo
from pipelines.archive.formats.youtube_vis import write_youtube_vis

FORMATS: Mapping[str, Format] = {
    "youtube_vis": Format(write_youtube_vis, federated=True),
    "coco": Format(write_coco, federated=True),
    "cvat": Format(write_cvat, (r"([^/]+)\.xml",)),
    "yolo": Format(write_yolo, (r"labels/([^/]+)/\d+\.txt",), images="images/"),
    "mots": Format(write_mots, (r"data/([^/]+)\.txt", r"([^/]+)/seqinfo\.ini")),
    "label_studio": Format(write_label_studio),
    "huggingface": Format(write_huggingface),
    "rerun": Format(write_rerun, (r"([^/]+)\.rrd",)),
}
