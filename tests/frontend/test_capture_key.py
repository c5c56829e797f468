"""The key of a captured graph changes with everything that reaches the graph."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fretsaw.frontend import capture_key as module
from fretsaw.frontend.capture_key import capture_key
from fretsaw.frontend.checkpoint import load_checkpoint
from tests import families


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    families.save("llama", path)
    return path


def append(path: Path) -> None:
    path.write_text(path.read_text() + "\n")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


CHANGES: dict[str, Callable[[pytest.MonkeyPatch, Path], None]] = {
    "configuration": lambda m, p: append(p / "config.json"),
    "weights": lambda m, p: flip(p / "model.safetensors"),
    "torch": lambda m, p: m.setattr(module, "_version", lambda name: "9" if name == "torch" else "1"),
    "transformers": lambda m, p: m.setattr(module, "_version", lambda name: "9" if name == "transformers" else "1"),
    "Python": lambda m, p: m.setattr(platform, "python_version", lambda: "3.99"),
    "our own code": lambda m, p: m.setattr(module, "_sources", lambda: "other"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_input_is_in_the_key(change: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if change in ("torch", "transformers"):
        monkeypatch.setattr(module, "_version", lambda name: "1")
    before = capture_key(load_checkpoint(tmp_path))
    assert before == capture_key(load_checkpoint(tmp_path))
    CHANGES[change](monkeypatch, tmp_path)
    assert capture_key(load_checkpoint(tmp_path)) != before


def test_every_source_of_the_frontend_and_the_ir_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("frontend/import_aten/a.py", "ir/ops/b.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(module, "__file__", str(tmp_path / "frontend" / "capture_key.py"))
    digest = module._sources.__wrapped__
    seen = [digest()]
    for name in ("frontend/import_aten/a.py", "ir/ops/b.py"):
        (tmp_path / name).write_text("x = 2\n")
        seen.append(digest())
    assert len(set(seen)) == 3


def test_the_key_needs_no_torch(folder: Path) -> None:
    code = f"""if True:
        import sys
        sys.modules["torch"] = None
        from pathlib import Path
        from fretsaw.frontend.capture_key import capture_key
        from fretsaw.frontend.checkpoint import load_checkpoint
        print(capture_key(load_checkpoint(Path({str(folder)!r}))))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == capture_key(load_checkpoint(folder))
