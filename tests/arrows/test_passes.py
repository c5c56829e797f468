"""Import arrows among the folders of passes: passes know how they are measured, nothing that measures knows a pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.arrows.test_arrows import imports

# Folder of passes/ -> neighbours whose modules it may import, wherever in a file the import stands.
ALLOWED: Mapping[str, frozenset[str]] = {
    "kit": frozenset({"api", "evidence", "pipeline"}),  # the registry lists the pipeline, the ledger has costs
    "canonical": frozenset({"api", "kit"}),
    "fused": frozenset({"api", "kit"}),
    "packed": frozenset({"api", "kit"}),
    "storage": frozenset({"api", "kit"}),
    "evidence": frozenset({"api", "kit"}),
    "sparse": frozenset({"api", "kit", "evidence"}),
}


def check(passes: Path) -> list[str]:
    """Every import against the arrows, as ``file:line: why``."""
    found = []
    for folder, allowed in ALLOWED.items():
        for path in sorted((passes / folder).rglob("*.py")):
            name = path.relative_to(passes)
            package = ".".join(["fretsaw.passes", *name.parent.parts])
            for line, module in imports(path.read_text(), package):
                parts = module.split(".")
                if parts[:2] == ["fretsaw", "passes"] and (parts[2:3] or [""])[0] not in {folder, *allowed}:
                    found.append(f"{name.as_posix()}:{line}: {folder} may not import {module}")
    return found


def test_arrows(root: Path) -> None:
    assert check(root / "passes") == []


def test_every_folder_of_passes_has_a_rule(root: Path) -> None:
    assert {p.parent.name for p in (root / "passes").glob("*/__init__.py")} == set(ALLOWED)


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("evidence", "from fretsaw.passes.sparse.calibrate.report import AttentionReport"),
        ("evidence", "def f():\n    from ..sparse import options"),
        ("evidence", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fretsaw.passes.sparse"),
        ("canonical", "from fretsaw.passes.fused.merge_qkv import merge_qkv"),
        ("sparse", "from fretsaw.passes.pipeline import run_pipeline"),
        ("packed", "from fretsaw import passes"),
    ],
)
def test_the_check_can_fail(tmp_path: Path, folder: str, line: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "wrong.py").write_text(f"from fretsaw.passes.api import Pass\n{line}\n")
    found = check(tmp_path)
    assert len(found) == 1 and f"{folder} may not import fretsaw.passes" in found[0]
