"""InstFormer, the method of *OpenVIS: Open-vocabulary Video Instance Segmentation* (AAAI-25), as a library.

`import openvis_model as openvis` imports nothing else: torch and the networks are loaded when a name is first used.

    model = openvis.load()                                    # or load("checkpoint/")
    segmenter = openvis.VideoSegmenter(model, ["red star", "blue disc"])
    for frame in segmenter.track(frames):                     # uint8 [T, H, W, 3], or an iterator of frames
        print(frame.index, frame.track_ids, frame.categories)
    tracks = segmenter.finish()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openvis_model.frame_result import FrameResult as FrameResult
    from openvis_model.inst_former import InstFormer as InstFormer
    from openvis_model.options import AssociationConfig as AssociationConfig
    from openvis_model.options import VideoTrackerConfig as VideoTrackerConfig
    from openvis_model.track import CategoryScore as CategoryScore
    from openvis_model.track import Track as Track
    from openvis_model.video_frames import Frames as Frames
    from openvis_model.video_segmenter import VideoSegmenter as VideoSegmenter
    from openvis_model.video_state import VideoState as VideoState
    from openvis_model.vocabulary import Vocabulary as Vocabulary
    from openvis_model.weights.checkpoint import fold as fold
    from openvis_model.weights.checkpoint import save_checkpoint as save_checkpoint
    from openvis_model.weights.folded_model import load as load

__version__ = "0.2.0"

_MODULES = {
    "AssociationConfig": "openvis_model.options",
    "CategoryScore": "openvis_model.track",
    "FrameResult": "openvis_model.frame_result",
    "Frames": "openvis_model.video_frames",
    "InstFormer": "openvis_model.inst_former",
    "Track": "openvis_model.track",
    "VideoSegmenter": "openvis_model.video_segmenter",
    "VideoState": "openvis_model.video_state",
    "VideoTrackerConfig": "openvis_model.options",
    "Vocabulary": "openvis_model.vocabulary",
    "fold": "openvis_model.weights.checkpoint",
    "load": "openvis_model.weights.folded_model",
    "save_checkpoint": "openvis_model.weights.checkpoint",
}
"""The public names, and the module that each is imported from when it is first used."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_MODULES)}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
