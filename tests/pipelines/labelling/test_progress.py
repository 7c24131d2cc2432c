from pipelines.labelling.progress import Progress


def test_progress_adds_up() -> None:
    assert Progress(ok=1, frames=2) + Progress(ok=2, failed=1) == Progress(ok=3, failed=1, frames=2)
