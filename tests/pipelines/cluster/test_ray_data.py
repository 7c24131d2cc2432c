import logging
from types import SimpleNamespace
from typing import Any

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


def executor(inputs: int = 0, outputs: int = 0) -> Any:
    """What the callback reads of Ray Data's executor, for one operator."""
    metrics = SimpleNamespace(num_inputs_received=inputs, num_outputs_taken=outputs)
    return SimpleNamespace(_topology=[SimpleNamespace(metrics=metrics)])


def test_pauses_are_longer_while_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    now, paused = [50.0], list[float]()
    monkeypatch.setattr("pipelines.cluster.ray_data.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("pipelines.cluster.ray_data._stop", SimpleNamespace(wait=paused.append))
    pause = _Pause()
    for seconds in (0.0, 0.04, 0.12, 0.2, 10.0):
        now[0] = 50.0 + seconds
        pause.on_execution_step(executor())
    assert paused == pytest.approx([0.02, 0.02, 0.03, 0.05, 0.25])
    pause.on_execution_step(executor(inputs=1))
    now[0] += 0.2
    pause.on_execution_step(executor(inputs=1))
    pause.on_execution_step(executor(inputs=1, outputs=1))
    assert paused[5:] == pytest.approx([0.02, 0.05, 0.02])


def test_pipelines_that_come_after_a_stop_run() -> None:
    pause = _Pause()
    with data_stopped(), pytest.raises(RuntimeError, match="stopped"):
        pause.on_execution_step(executor())
    pause.on_execution_step(executor())
