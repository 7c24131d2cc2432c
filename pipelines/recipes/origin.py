"""Where the weights of a checkpoint come from, as the checkpoint says. Imports no torch."""

import json
from typing import Any

from openvis_model.options import AssociationKind
from pipelines.storage.files import Storage


def origin_of(checkpoint: str | None) -> dict[str, Any]:
    """Returns what a checkpoint says of its weights; nothing if they were trained, or it is none.

    Args:
        checkpoint: a folder, local or in the cloud; None is the built-in model.

    Raises:
        OSError: it cannot be read.
    """
    try:
        content = Storage(checkpoint).read_bytes("config.json") if checkpoint else None
        origin = json.loads(content or "{}").get("origin")
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return {}
    return origin if isinstance(origin, dict) and "recipe" in origin else {}


def check_association(kind: AssociationKind, checkpoint: str | None) -> None:
    """Checks that a checkpoint can link instances as asked.

    Raises:
        ValueError: the association needs a trained rollout tracker, and the checkpoint says that its own is not.
    """
    if kind == "rollout" and origin_of(checkpoint).get("fine_tuned") is False:
        raise ValueError(
            f"tracker.association.kind: rollout needs a trained rollout tracker, and that of {checkpoint} is not; give "
            "hungarian, with the token query"
        )
