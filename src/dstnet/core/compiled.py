"""Loops compiled by numba, which is loaded only when one is asked for: it takes half a second."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any


def compiled(function: Callable[..., Any], signature: str, **options: Any) -> Callable[..., Any]:
    """`function` compiled for `signature`, free of the interpreter's lock, with further options of
    ``numba.njit``.

    The code is kept beside the function's source for the next process; where there is nowhere to
    keep it, each process compiles anew. What was kept and is damaged, as after a power cut, is
    removed.
    """
    import numba

    # What checks shapes while the tests run wraps functions, which numba cannot compile.
    function = inspect.unwrap(function)
    try:
        return numba.njit(signature, nogil=True, cache=True, **options)(function)
    except Exception:  # damaged files surface as nearly every kind
        _forget(function, **options)
    try:
        return numba.njit(signature, nogil=True, cache=True, **options)(function)
    except Exception:  # a mistake in the function itself comes once more
        return numba.njit(signature, nogil=True, **options)(function)


def _forget(function: Callable[..., Any], **options: Any) -> None:
    """Remove what is kept of a function, as far as that is possible."""
    import numba

    try:
        kept = numba.njit(nogil=True, cache=True, **options)(function)
        folder = Path(str(kept.stats.cache_path))
        code = function.__code__
        for path in folder.glob(f"{Path(code.co_filename).stem}.*-{code.co_firstlineno}.*.nb?"):
            path.unlink()
    except (RuntimeError, OSError):
        pass
