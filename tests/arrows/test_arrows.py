"""Import arrows: which folder may import which, and which libraries, read from the sources themselves."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

SEAM = ("backend", "built", "lowering", "tensor")  # what a target's folder knows of backends/
# Folder -> (package name, siblings it may import, libraries it may import). Longest folder name wins.
RULES: Mapping[str, tuple[str, frozenset[str], frozenset[str]]] = {
    "ir": ("fretsaw.ir", frozenset(), frozenset({"numpy", "networkx", "scipy"})),
    "frontend": (
        "fretsaw.frontend", frozenset({"ir"}),
        frozenset({"numpy", "torch", "transformers", "tokenizers", "jinja2", "sympy"}),
    ),
    "passes": ("fretsaw.passes", frozenset({"ir"}), frozenset({"networkx", "numpy", "scipy"})),
    "backends/artifact": ("fretsaw.backends.artifact", frozenset({"ir"}), frozenset({"numpy"})),
    "backends/kernel_cache": ("fretsaw.backends.kernel_cache", frozenset(), frozenset()),
    "backends/program": (
        "fretsaw.backends.program", frozenset({"ir", *(f"backends.{name}" for name in SEAM)}), frozenset({"numpy"}),
    ),
    "backends/tvm": (
        "fretsaw.backends.tvm",
        frozenset({"ir", "backends.kernel_cache", "backends.program", *(f"backends.{name}" for name in SEAM)}),
        frozenset({"numpy", "tvm", "tvm_ffi", "ml_dtypes"}),
    ),
    # A backend brings passes, and has options like theirs.
    "backends": ("fretsaw.backends", frozenset({"ir", "passes.api", "passes.kit.options"}), frozenset({"numpy"})),
    "runtime/python": ("fretsaw.runtime", frozenset(), frozenset({"numpy"})),
}  # fmt: skip
FREE = ("tools", "tests", "examples")  # these see everything


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute module of every import in ``source``, a module of ``package``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            if base == "fretsaw":
                yield from ((node.lineno, f"fretsaw.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, base


def violation(folder: str, module: str) -> str:
    """Why a file of ``folder`` may not import ``module``; empty when it may."""
    package, siblings, libraries = RULES[folder]
    if module == package or module.startswith(package + "."):
        return ""
    if module.startswith("fretsaw"):
        allowed = any(f"{module}.".startswith(f"fretsaw.{sibling}.") for sibling in siblings)
        return "" if allowed else f"{folder} may not import {module}"
    top = module.split(".")[0]
    if top in sys.stdlib_module_names or top in libraries:
        return ""
    return f"{folder} may not import the library {top}"


def check(root: Path) -> list[str]:
    """Every import against the arrows, as ``file:line: why``."""
    found = []
    for folder in RULES:
        inner = [other for other in RULES if other.startswith(folder + "/")]
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if any(name.startswith(other + "/") for other in inner):
                continue
            below = path.parent.relative_to(root / folder).parts
            package = ".".join([RULES[folder][0], *below])
            for line, module in imports(path.read_text(), package):
                why = violation(folder, module)
                found += [f"{name}:{line}: {why}"] if why else []
    return found


def test_arrows(root: Path) -> None:
    assert check(root) == []


def test_every_python_folder_has_a_rule(root: Path) -> None:
    with_python = {
        p.relative_to(root).parts[0]
        for folder in root.iterdir()
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in ("build", "dist", "out")
        for p in folder.rglob("*.py")
    }
    assert with_python <= {r.split("/")[0] for r in RULES} | set(FREE)


@pytest.mark.parametrize(
    ("folder", "line", "why"),
    [
        ("ir", "import fretsaw.passes.api", "ir may not import fretsaw.passes.api"),
        ("ir", "from fretsaw import passes", "ir may not import fretsaw.passes"),
        ("passes", "from fretsaw.frontend.capture import capture", "may not import fretsaw.frontend.capture"),
        ("passes", "import torch.nn", "may not import the library torch"),
        ("frontend", "from ..passes import api", "may not import fretsaw.passes"),
        ("backends/artifact", "import fretsaw.backends.tvm", "may not import fretsaw.backends.tvm"),
        ("backends/program", "from fretsaw.backends.tvm import registry", "may not import fretsaw.backends.tvm"),
        ("backends/program", "import tvm", "may not import the library tvm"),
        ("backends/tvm", "def f():\n    import fretsaw.tools.cli", "may not import fretsaw.tools.cli"),
        ("runtime/python", "import fretsaw.ir", "may not import fretsaw.ir"),
    ],
)
def test_the_check_can_fail(tmp_path: Path, folder: str, line: str, why: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "wrong.py").write_text(f"import json\nimport numpy\n{line}\n")
    found = check(tmp_path)
    assert len(found) == 1 and why in found[0] and found[0].startswith(f"{folder}/wrong.py:")
