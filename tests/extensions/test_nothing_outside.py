"""An extension is its folder: no file of the product knows it."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
PRODUCT = ("ir", "frontend", "passes", "backends", "runtime", "tools")
SOURCES = {".py", ".h", ".cc", ".toml", ".txt", ".map"}


@pytest.mark.parametrize("name", sorted(p.name for p in HERE.iterdir() if p.is_dir() and p.name != "__pycache__"))
def test_the_product_does_not_name_it(name: str, root: Path) -> None:
    files = [p for folder in PRODUCT for p in (root / folder).rglob("*") if p.suffix in SOURCES]
    assert len(files) > 300  # the search looks somewhere
    assert [str(p) for p in files if name in p.read_text(encoding="utf-8")] == []
