"""How tests are shared out to processes."""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

ONE_ARCHIVE = (
    "pipelines/labelling/test_run.py",
    "pipelines/labelling/test_front_door.py",
    "pipelines/archive/test_relabel.py",
    "pipelines/archive/test_search.py",
    "pipelines/archive/test_exemplars.py",
)
"""Files whose tests read the same labelled archive: the process that runs them makes it."""


class Scheduling(LoadScopeScheduling):
    """All tests of a file run in one process, as do those of files that share what they make."""

    def remove_node(self, node: WorkerController) -> str | None:
        """Takes back what a process that died had left.

        The original also takes back the files that were done: the others, given nothing to do, then wait for ever.
        """
        work = self.assigned_work[node]
        for file in [file for file, done in work.items() if all(done.values())]:
            del work[file]
        return super().remove_node(node)

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "archive" if file.removeprefix("tests/") in ONE_ARCHIVE else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)
