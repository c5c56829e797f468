"""The tracked links by which editors and mypy follow ``fretsaw.ir`` to ``ir/``, in a fresh clone too."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

LINKS = "runtime/typing"


def test_every_folder_of_the_package_has_a_link(root: Path) -> None:
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]
    packages = settings["scikit-build"]["wheel"]["packages"] | {"fretsaw/runtime": "runtime/python"}
    there = {p.name for p in (root / LINKS / "fretsaw").iterdir() if p.is_symlink()}
    assert there == {name.removeprefix("fretsaw/") for name in packages}
    for name, folder in packages.items():
        assert (root / LINKS / name).resolve() == (root / folder).resolve()
    assert settings["mypy"]["mypy_path"][0] == LINKS and LINKS in settings["pyright"]["extraPaths"]


def test_no_link_leads_back_to_itself(root: Path) -> None:
    """Walks that follow links end: no linked folder holds the links."""
    links = (root / LINKS).resolve()
    for link in (root / LINKS / "fretsaw").iterdir():
        assert not link.is_symlink() or link.resolve() not in links.parents


def test_the_links_are_tracked(root: Path) -> None:
    if not (root / ".git").exists():
        return
    listed = subprocess.run(["git", "ls-files", "-s", LINKS], cwd=root, capture_output=True, text=True, check=True)
    assert sum(line.startswith("120000") for line in listed.stdout.splitlines()) == 6
