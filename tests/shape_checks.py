"""What checks the axes that signatures in `src` promise, while the tests run.

jaxtyping's import hook wraps every function of the package in `checked` (pyproject.toml,
--jaxtyping-packages). General type checkers would do, but know more of Python's typing than the
package needs, and refuse `typing.Self` in methods; only arrays' shapes are looked at here.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from jaxtyping import AbstractArray


def _axes(annotation: Any) -> tuple[type, ...]:
    """The array types among an annotation and the members of a union."""
    members = getattr(annotation, "__args__", None) or (annotation,)
    return tuple(m for m in members if isinstance(m, type) and issubclass(m, AbstractArray))


def checked(function: Callable) -> Callable:
    """`function`, refusing arrays whose axes are not those that its signature names."""
    signature = inspect.signature(function)
    promised = {n: a for n, p in signature.parameters.items() if (a := _axes(p.annotation))}
    returned = _axes(signature.return_annotation)
    if not promised and not returned:
        return function

    def check(value: Any, axes: tuple[type, ...], what: str) -> None:
        is_array = hasattr(value, "shape") and hasattr(value, "dtype")
        if is_array and not isinstance(value, axes):
            names = " or ".join(a.__name__ for a in axes)
            raise TypeError(
                f"{function.__qualname__}: {what} of shape {tuple(value.shape)} and type"
                f" {value.dtype} is no {names}"
            )

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        for name, axes in promised.items():
            if name in bound.arguments:
                check(bound.arguments[name], axes, name)
        result = function(*args, **kwargs)
        if returned:
            check(result, returned, "the result")
        return result

    return wrapper
