"""Generic code names no backend: it asks the registry. Only the registry's one list has names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fretsaw.backends.registry import BUILT_IN

# Folders and files that must not know which backends there are. Programs for developers (tools/bench, tools/dev) may.
GENERIC = ("ir", "frontend", "passes", "tools", "backends/artifact", "backends/kernel_cache", "backends")
# backends/registry.py is the list; the bundle is of the runtime's libraries, whatever built the artifact.
EXEMPT = ("backends/registry.py", "tools/bundle.py", "tools/commands/runtime_bundle.py", "tools/bench/", "tools/dev/")


def targets(root: Path) -> set[str]:
    """Folders of backends, which are names of their libraries, too."""
    generic = {Path(folder).name for folder in GENERIC}
    return {p.parent.name for p in (root / "backends").glob("*/backend.py")} - generic


def generic_files(root: Path) -> Iterator[Path]:
    for folder in GENERIC:
        deep = folder != "backends"
        for path in sorted((root / folder).rglob("*.py") if deep else (root / folder).glob("*.py")):
            if not path.relative_to(root).as_posix().startswith(EXEMPT):
                yield path


def named(source: str, folders: set[str], names: set[str]) -> list[int]:
    """Lines of code (help and docstrings aside) that have a folder's name, or a text that chooses a backend."""
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    word = re.compile(rf"\b({'|'.join(map(re.escape, sorted(folders)))})\b", re.IGNORECASE)
    choice = re.compile(rf"({'|'.join(map(re.escape, sorted(names)))})(:\w+=.*)?")
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            hit = word.search(node.value) or choice.fullmatch(node.value)
        elif isinstance(node, ast.ImportFrom):
            hit = word.search(f"{node.module} {' '.join(alias.name for alias in node.names)}".replace(".", " "))
        elif isinstance(node, ast.Import):
            hit = word.search(" ".join(alias.name for alias in node.names).replace(".", " "))
        elif isinstance(node, ast.Name):
            hit = word.fullmatch(node.id)
        else:
            continue
        found += [node.lineno] if hit else []
    return found


def test_generic_code_names_no_backend(root: Path) -> None:
    folders, names = targets(root), set(BUILT_IN)
    assert folders and names
    files = list(generic_files(root))
    assert {"tools/compiler.py", "tools/contents.py", "tools/commands/compile.py"} <= {
        p.relative_to(root).as_posix() for p in files
    }
    found = [f"{p.relative_to(root)}:{line}" for p in files for line in named(p.read_text(), folders, names)]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "from fretsaw.backends.paper.options import PaperOptions",
        "from fretsaw.backends import paper",
        "import paper.api",
        'choose("sheet")',
        'choose("sheet:size=3")',
        'packages = {"paper": 1}',
        "paper = 1",
    ],
)
def test_the_check_can_fail(line: str) -> None:
    assert named(f'"""Words on a sheet of paper are no names."""\n{line}\n', {"paper"}, {"sheet"}) == [2]
