"""What the docs name exists: modules, files of the project, and no other's."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILE = re.compile(r"(?<![\w./])((?:[\w.-]+/)+[\w-]+\.(?:py|yaml|json|html))\b")
NAME = re.compile(r"(?<!/)\bdstnet((?:\.\w+)+)(?!\w*\.py)")
PLACES = (ROOT, ROOT / "src" / "dstnet", ROOT / "tests", ROOT / "benchmarks")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page):
    named = {name for name in FILE.findall(page.read_text()) if name.endswith(".py")}
    missing = {n for n in named if not any((place / n).is_file() for place in PLACES)}
    assert not missing, f"{page.name} names {', '.join(sorted(missing))}"


def _exists(dotted: str) -> bool:
    """Whether `dstnet.a.b` is a module, or a name in one."""
    parts = dotted.strip(".").split(".")
    found = importlib.import_module("dstnet")
    for i, part in enumerate(parts):
        try:
            found = importlib.import_module(".".join(["dstnet", *parts[: i + 1]]))
        except ModuleNotFoundError:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_that_a_page_uses_exist(page):
    missing = {n for n in NAME.findall(page.read_text()) if not _exists(n)}
    assert not missing, f"{page.name} names {', '.join('dstnet' + n for n in sorted(missing))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_on_a_page_names_what_exists(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        tree = ast.parse(block)
        imports = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        names: dict[str, object] = {}
        exec(compile(ast.Module(imports, []), str(page), "exec"), names)
        for node in ast.walk(tree):
            owner = getattr(getattr(node, "value", None), "id", None)
            if isinstance(node, ast.Attribute) and owner in names:
                assert hasattr(names[owner], node.attr), f"{page.name}: {node.attr}"


def test_the_check_bites():
    assert _exists(".alignment.align") and not _exists(".alignment.nonsense")
    assert FILE.findall("see `enhancement/nonsense.py`, and x") == ["enhancement/nonsense.py"]
