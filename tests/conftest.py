"""How tests are shared out to processes; `fixtures` has what they use."""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

LONGEST_FIRST = (
    "pipelines/labelling/test_chaos.py",
    "jobs/test_submit.py",
    "jobs/test_train.py",
    "pipelines/labelling/test_run.py",
    "pipelines/evaluation/test_sweep.py",
    "pipelines/training/test_run.py",
    "pipelines/labelling/test_mixed_archive.py",
    "pipelines/labelling/test_pipeline.py",
    "pipelines/labelling/test_passes.py",
    "pipelines/archive/test_cluster_map.py",
    "pipelines/labelling/test_run_in_the_cloud.py",  # ends the cluster that those above share, as do the next ones
    "pipelines/labelling/test_prometheus.py",
    "pipelines/labelling/test_machines.py",
    "pipelines/cluster/test_connection.py",
    "pipelines/cluster/test_liveness.py",
    "pipelines/review/test_page.py",
    "jobs/test_demo.py",
    "jobs/test_label_model.py",
    "pipelines/archive/test_tables.py",
    "pipelines/archive/test_other_readers.py",
    "pipelines/storage/test_s3.py",
    "pipelines/training/test_loader.py",
    "pipelines/training/test_stages.py",
    "pipelines/archive/test_compaction.py",
    "openvis_model/test_video_segmenter.py",
    "pipelines/shapes/test_scenes.py",
    "pipelines/training/test_clips.py",
    "test_imports.py",
)

ONE_ARCHIVE = (
    "pipelines/labelling/test_run.py",
    "pipelines/labelling/test_front_door.py",
    "pipelines/archive/test_relabel.py",
    "pipelines/archive/test_search.py",
    "pipelines/archive/test_exemplars.py",
)
"""Files whose tests read the same labelled archive: the process that runs them makes it."""


def pytest_configure(config: pytest.Config) -> None:
    """Loads the fixtures, and with them all libraries, in processes that run tests, not in the one that starts them."""
    if config.getoption("dist") == "no":
        config.pluginmanager.import_plugin("tests.fixtures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take longest first, so that both processes end at about the same time."""
    rank = {f"tests/{name}": at for at, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(_file(item.nodeid), len(rank)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "Scheduling":
    return Scheduling(config, log)


class Scheduling(LoadScopeScheduling):
    """All tests of a file run in one process, as do those of files that share what they make."""

    def _split_scope(self, nodeid: str) -> str:
        file = _file(nodeid)
        return "archive" if file.removeprefix("tests/") in ONE_ARCHIVE else file


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]
