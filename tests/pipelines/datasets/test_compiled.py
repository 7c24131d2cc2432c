import pytest
from numba.core.caching import CacheImpl

from pipelines.datasets.compiled import kernel


def test_compiles_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no folder to write to, numba refuses to keep machine code, as where a package is installed read-only."""
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    double = kernel(lambda x: 2 * x)
    assert double(21) == 42
