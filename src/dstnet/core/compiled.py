"""Loops compiled by numba, which is loaded only when one is asked for: it takes half a second."""

import inspect
from collections.abc import Callable
from typing import Any


def compiled(function: Callable[..., Any], signature: str, **options: Any) -> Callable[..., Any]:
    """`function` compiled for `signature`, free of the interpreter's lock, with further options of
    ``numba.njit``.

    The code is kept beside the function's source for the next process; where there is nowhere to
    keep it, each process compiles anew.
    """
    import numba

    # What checks shapes while the tests run wraps functions, which numba cannot compile.
    function = inspect.unwrap(function)
    try:
        return numba.njit(signature, nogil=True, cache=True, **options)(function)
    except (RuntimeError, OSError):
        return numba.njit(signature, nogil=True, **options)(function)
