"""What checks the arrays that signatures in `src` promise, while the tests run.

`install` has every function, method and dataclass of the package refuse arrays whose number of axes
or kind of number is not what its annotation says, and give no others. jaxtyping's own import hook
would do it, but wraps all functions, also those that numba compiles, and asks for a type checker
that knows the rest of Python's typing; only arrays are looked at here.
"""

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FunctionType, ModuleType
from typing import Any

from jaxtyping import AbstractArray

# Gives what an array should have been, or "" where it is that.
Check = Callable[[Any], str]


def _no_array(value: Any) -> bool:
    return not (hasattr(value, "shape") and hasattr(value, "dtype"))


def _make_check(annotation: Any) -> Check | None:
    """What looks at the arrays of an annotation; None where it names none."""
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return _check_of_array((annotation,), annotation.__name__)
    origin = typing.get_origin(annotation)
    members = typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return _check_of_union(members)
    if not isinstance(origin, type):
        return None
    if origin is tuple and Ellipsis not in members:
        return _check_of_tuple([_make_check(m) for m in members])
    if issubclass(origin, Mapping) or issubclass(origin, Sequence):
        element = _make_check(members[1 if issubclass(origin, Mapping) else 0])
        return _check_of_elements(element)
    return None


def _check_of_array(accepted: tuple[type, ...], name: str) -> Check:
    def check(value: Any) -> str:
        return "" if _no_array(value) or isinstance(value, accepted) else name

    return check


def _check_of_union(members: tuple[Any, ...]) -> Check | None:
    arrays = [m for m in members if isinstance(m, type) and issubclass(m, AbstractArray)]
    if arrays:
        plain = tuple(m for m in members if isinstance(m, type))
        return _check_of_array(plain, " or ".join(a.__name__ for a in arrays))
    checks = [check for m in members if (check := _make_check(m))]
    if len(checks) != 1:
        return None
    return checks[0]


def _check_of_tuple(checks: list[Check | None]) -> Check | None:
    if not any(checks):
        return None

    def check(value: Any) -> str:
        if not isinstance(value, tuple):
            return ""
        pairs = zip(value, checks, strict=False)
        return next((said for v, c in pairs if c and (said := c(v))), "")

    return check


def _check_of_elements(element: Check | None) -> Check | None:
    if element is None:
        return None

    def check(value: Any) -> str:
        if isinstance(value, Mapping):
            value = value.values()
        elif not isinstance(value, list | tuple):
            return ""
        return next((said for v in value if (said := element(v))), "")

    return check


def checked(function: Callable) -> Callable:
    """`function`, refusing arrays whose axes are not those that its signature names."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except NameError:  # names imported for type checkers alone
        signature = inspect.signature(function)
    parameters = enumerate(signature.parameters.items())
    promised = [(i, n, c) for i, (n, p) in parameters if (c := _make_check(p.annotation))]
    returned = None
    if not inspect.isgeneratorfunction(function):
        returned = _make_check(signature.return_annotation)
    if not promised and returned is None:
        return function

    def refuse(value: Any, what: str, name: str) -> None:
        found = type(value).__name__
        if hasattr(value, "shape"):
            found = f"{tuple(value.shape)} {value.dtype}"
        raise TypeError(f"{function.__qualname__}: {what}, {found}, is no {name}")

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for index, name, check in promised:
            value = args[index] if index < len(args) else kwargs.get(name)
            if value is not None and (said := check(value)):
                refuse(value, name, said)
        result = function(*args, **kwargs)
        if returned is not None and (said := returned(result)):
            refuse(result, "the result", said)
        return result

    return wrapper


def _check_class(cls: type) -> None:
    for name, member in list(vars(cls).items()):
        if isinstance(member, FunctionType):
            new: Any = checked(member)
        elif isinstance(member, classmethod | staticmethod):
            new = type(member)(checked(member.__func__))
        elif isinstance(member, property) and member.fget is not None:
            new = property(checked(member.fget), member.fset, member.fdel, member.__doc__)
        else:
            continue
        setattr(cls, name, new)


def check_module(module: ModuleType) -> None:
    """Put `checked` round all functions and methods that a module defines."""
    for name, value in list(vars(module).items()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, FunctionType):
            setattr(module, name, checked(value))
        elif isinstance(value, type):
            _check_class(value)


class _CheckedLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        check_module(module)


class _Finder(MetaPathFinder):
    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != self.package:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _CheckedLoader(spec.loader.name, spec.loader.path)
        return spec


def install(package: str) -> None:
    """Check all modules of a package that are imported from now on."""
    assert package not in sys.modules, f"{package} was imported before its checks"
    sys.meta_path.insert(0, _Finder(package))
