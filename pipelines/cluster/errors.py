"""What errors of Ray say."""

import re

from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    WorkerCrashedError,
)
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError

_LOSSES = (RayActorError, WorkerCrashedError, NodeDiedError, ObjectLostError, LocalRayletDiedError, RayOutOfMemoryError)
_LOSS_IN_TEXT = re.compile(
    rf"ray\.exceptions\.({'|'.join(kind.__name__ for loss in _LOSSES for kind in (loss, *loss.__subclasses__()))})\b"
)


def is_loss(error: BaseException | None) -> bool:
    """Returns whether Ray lost a process, a machine or an object, as opposed to an error that code raised."""
    while error:
        if isinstance(error, _LOSSES) or _LOSS_IN_TEXT.search(str(error)):  # a task's error holds its causes as text
            return True
        error = error.__cause__
    return False


def reason(error: BaseException | None) -> str:
    """Returns the cause of an error of Ray: the first error in the traceback that is its text."""
    lines = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]
    return (named or lines or [repr(error)])[0]
