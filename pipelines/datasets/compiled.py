"""Functions on arrays, compiled by numba."""

import inspect
from collections.abc import Callable
from typing import TypeVar

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., object])


def kernel(function: _Function) -> _Function:
    """Compiles a function at its first call; it lets other threads run, and its machine code is kept on disk.

    While the tests run, their shape checker wraps all functions before decorators see them, and only the inner
    function can be compiled. Where neither the package's folder nor the user's is writable, every process compiles.
    """
    inner = inspect.unwrap(function)
    try:
        compiled: _Function = njit(cache=True, nogil=True)(inner)
    except RuntimeError:
        compiled = njit(nogil=True)(inner)
    return compiled
