import logging

import pytest
from ray.data import DataContext

from pipelines.cluster.ray_data import _Pause, calm_data, data_stopped


def test_calm_data() -> None:
    context = DataContext()
    calm_data(context)
    assert not context.enable_progress_bars
    assert len(context.custom_execution_callback_classes) == 1
    assert context.execution_no_progress_timeout_s == -1
    assert logging.getLogger("ray.data").level == logging.CRITICAL


def test_pipelines_that_come_after_a_stop_run() -> None:
    pause = _Pause()
    with data_stopped(), pytest.raises(RuntimeError, match="stopped"):
        pause.on_execution_step(None)
    pause.on_execution_step(None)
