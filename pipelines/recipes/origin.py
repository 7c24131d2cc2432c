"""Where the weights of a checkpoint come from, as the checkpoint says. Imports no torch."""

import json
from typing import Any

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
