"""In which order tests run; `scheduling` shares them out to processes, `fixtures` has what they use."""

import pytest

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
    "pipelines/labelling/test_run_in_the_cloud.py",  # ends the cluster that those above share, as does test_machines
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


def pytest_configure(config: pytest.Config) -> None:
    """Loads the fixtures, and with them all libraries, in processes that run tests, not in the one that starts them."""
    config.pluginmanager.import_plugin("tests.fixtures" if config.getoption("dist") == "no" else "tests.scheduling")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the files that take longest first, so that both processes end at about the same time."""
    rank = {f"tests/{name}": at for at, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))
