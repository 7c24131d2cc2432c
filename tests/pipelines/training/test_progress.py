import subprocess
import sys

from pipelines.training.progress import Monitor, TrainingProgress


def test_the_monitor_outlives_workers() -> None:
    monitor = Monitor()
    assert monitor.progress() is None
    monitor.begin()
    monitor.update(TrainingProgress(step=1, steps=9, first_step=0))
    monitor.begin()
    monitor.update(TrainingProgress(step=4, steps=9, first_step=3, loss=2.0))
    assert monitor.progress() == TrainingProgress(step=4, steps=9, first_step=3, loss=2.0, restarts=1)


def test_a_checkpoint_is_asked_for_until_it_is_stored() -> None:
    monitor, progress = Monitor(), TrainingProgress(step=4, steps=9, first_step=3)
    assert not monitor.update(progress)
    monitor.notify()
    assert monitor.update(progress)
    assert monitor.stored_at() is None
    monitor.store(4)
    assert (monitor.update(progress), monitor.stored_at()) == (False, 4)


def test_the_first_reason_counts() -> None:
    monitor = Monitor()
    assert monitor.failure() is None
    monitor.fail("a")
    monitor.fail("b")
    assert monitor.failure() == "a"


def test_it_comes_without_torch() -> None:
    code = "import sys, pipelines.training.progress; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
