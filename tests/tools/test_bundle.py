"""The bundle runs with an empty environment, and every library but the C library's own comes out of the folder."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fretsaw.ir.errors import FretsawError, UsageError
from fretsaw.tools.bundle import BundledFile, is_system, resolve, write_bundle
from fretsaw.tools.native import native_file

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[BundledFile]]:
    try:
        native_file("fretsaw-run")
    except FretsawError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("bundle") / "runtime"
    return folder, write_bundle(folder)


def test_contents(bundle: tuple[Path, list[BundledFile]]) -> None:
    folder, files = bundle
    names = {file.name for file in files}
    assert "fretsaw-run" in names and not any("tvm" in name for name in names)
    for stem in ("libonig", "libutf8proc", "libnettle", "libstdc++", "libgcc_s"):
        assert any(name.startswith(stem) for name in names), stem
    assert not any(is_system(name) or "python" in name for name in names)
    assert [p.name for p in folder.parent.iterdir()] == ["runtime"]


def test_it_is_small(bundle: tuple[Path, list[BundledFile]]) -> None:
    assert sum(file.size for file in bundle[1]) < 6_000_000


def test_everything_resolves_inside(bundle: tuple[Path, list[BundledFile]]) -> None:
    folder, files = bundle
    found = set()
    for name, path in resolve(folder / "fretsaw-run", environment={"PATH": "/usr/bin:/bin"}).items():
        if not is_system(name):
            assert path is not None and path.parent == folder, f"fretsaw-run takes {name} from {path}"
            found.add(name)
    assert found | {"fretsaw-run"} == {file.name for file in files}


def test_runs_with_an_empty_environment(bundle: tuple[Path, list[BundledFile]], tmp_path: Path) -> None:
    """The loader's own report: what it opened, from where. No Python, no variable but the one that asks for it."""
    folder, _ = bundle
    log = tmp_path / "loader"
    environment = {"LD_DEBUG": "libs,files", "LD_DEBUG_OUTPUT": str(log)}
    done = subprocess.run(
        [str(folder / "fretsaw-run"), "--version"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and "0.1.0" in done.stdout and done.stderr == ""
    opened = re.findall(r"calling init: (.+)", "".join(p.read_text() for p in tmp_path.glob("loader.*")))
    assert opened
    outside = [path for path in opened if not path.startswith(str(folder)) and not is_system(Path(path).name)]
    assert outside == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists"):
        write_bundle(tmp_path)
