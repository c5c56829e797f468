"""No import circles between modules, wherever in a file the import stands; imports for types alone do not run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

ROOTS = {"ir": "ir", "frontend": "frontend", "passes": "passes", "backends": "backends", "tools": "tools",
         "runtime": "runtime/python"}  # fmt: skip


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its name."""
    out: dict[str, Path] = {}
    for name, folder in ROOTS.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = ["fretsaw", name, *path.relative_to(root / folder).with_suffix("").parts]
            out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


def imported(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules that ``name`` imports when it is loaded or when one of its functions is called."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in running(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            whole = [f"{base}.{alias.name}" for alias in node.names]
            yield from (module if module in known else base for module in whole)


def running(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of ``tree`` without what stands under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from running(other)
            continue
        yield child
        yield from running(child)


def circles(root: Path) -> list[str]:
    """One line for each circle: the modules on it."""
    known = modules(root)
    graph: nx.DiGraph[str] = nx.DiGraph()
    for name, path in known.items():
        graph.add_edges_from((name, other) for other in imported(name, path, known) if other in known and other != name)
    return [" -> ".join(sorted(c)) for c in nx.strongly_connected_components(graph) if len(c) > 1]


def test_no_circles(root: Path) -> None:
    assert len(modules(root)) > 300 and circles(root) == []


@pytest.mark.parametrize(
    "line",
    [
        "from fretsaw.passes.b import x", "import fretsaw.passes.b", "from fretsaw.passes import b",
        "from .b import x", "def f():\n    from fretsaw.passes.b import x",
    ],
)  # fmt: skip
def test_the_check_can_fail(tmp_path: Path, line: str) -> None:
    folder = tmp_path / "passes"
    folder.mkdir()
    (folder / "a.py").write_text(line + "\n")
    (folder / "b.py").write_text("from fretsaw.passes.c import y\n")
    (folder / "c.py").write_text("def g():\n    import fretsaw.passes.a\n")
    assert circles(tmp_path) == ["fretsaw.passes.a -> fretsaw.passes.b -> fretsaw.passes.c"]


def test_types_and_straight_lines_are_no_circle(tmp_path: Path) -> None:
    folder = tmp_path / "passes"
    folder.mkdir()
    (folder / "a.py").write_text("from fretsaw.passes import b\n")
    (folder / "b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fretsaw.passes import a\n"
    )
    assert circles(tmp_path) == []
