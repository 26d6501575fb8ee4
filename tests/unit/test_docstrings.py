"""Rules of the source that no linter knows: what is raised is documented, and files stay short."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dstnet
from dstnet import errors

SOURCE = Path(dstnet.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
ERRORS = {name for name in vars(errors) if name.endswith("Error")}
LONGEST = 400  # lines of a file


def public_functions(
    body: list[ast.stmt], prefix: str = "", outer: str = ""
) -> Iterator[tuple[str, ast.FunctionDef, str]]:
    """Each function and method whose names hold no underscore at their start, and the docstrings
    that speak of it: its own; of a constructor, its class's.
    """
    for node in body:
        match node:
            case ast.ClassDef() if not node.name.startswith("_"):
                own = ast.get_docstring(node) or ""
                yield from public_functions(node.body, f"{prefix}{node.name}.", own)
            case ast.FunctionDef(name="__init__" | "__post_init__"):
                yield f"{prefix}{node.name}", node, outer
            case ast.FunctionDef() if node.name == "__call__" or not node.name.startswith("_"):
                yield f"{prefix}{node.name}", node, ast.get_docstring(node) or ""


def raised(function: ast.FunctionDef) -> set[str]:
    """Names of our errors that it raises itself."""
    found = set()
    for node in ast.walk(function):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name))) if name in ERRORS:
                found.add(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_what_is_raised_is_documented(path):
    silent = []
    for name, function, docstring in public_functions(ast.parse(path.read_text()).body):
        if raised(function) and "Raises\n------" not in docstring:
            silent.append(f"{function.lineno}: {name} raises {', '.join(raised(function))}")
    assert not silent


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= LONGEST
