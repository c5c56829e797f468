"""A graph that was captured before is taken again, and gives the same artifact without torch; a damaged one is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.ir import to_text
from fretsaw.tools.capturing import captured_graph
from tests import families


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    families.save("llama", path)
    return path


def test_the_second_time_it_is_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRETSAW_CACHE", str(tmp_path))
    first, second = (captured_graph(load_checkpoint(folder)) for _ in range(2))
    assert (first.kept, second.kept) == (False, True) and first.troubles == second.troubles == ()
    assert first.graph == second.graph and to_text(first.graph) == to_text(second.graph)
    (entry,) = tmp_path.glob("*/*.graph")
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 1
    entry.write_bytes(data)
    third = captured_graph(load_checkpoint(folder))
    assert not third.kept and "is damaged; captured again" in third.troubles[0]
    assert captured_graph(load_checkpoint(folder)).kept
    monkeypatch.setenv("FRETSAW_CACHE", "off")
    assert not captured_graph(load_checkpoint(folder)).kept


def test_unused_tensors_are_named_both_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.torch import load_file, save_file

    families.save("llama", tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "model.layers.0.extra.bias": tensors["model.norm.weight"].clone()}, weights)
    monkeypatch.setenv("FRETSAW_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        caplog.clear()
        with caplog.at_level("INFO"):
            captured_graph(load_checkpoint(tmp_path / "m"))
        assert caplog.messages == ["tensor model.layers.0.extra.bias is not used"]


def test_a_compile_from_the_cache_gives_the_same_bytes_without_torch(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "no" / "torch").mkdir(parents=True)
    (tmp_path / "no" / "torch" / "__init__.py").write_text("raise SystemExit('torch is imported')\n")
    artifacts = []
    for n, extra in enumerate(({}, {"PYTHONPATH": f"{tmp_path / 'no'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"})):
        out = tmp_path / f"{n}.fsaw"
        command = [sys.executable, "-m", "fretsaw.tools", "compile", str(folder), "-o", str(out), "--cpu", "x86-64-v3"]
        env = {**os.environ, "FRETSAW_CACHE": str(tmp_path / "cache"), **extra}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        artifacts.append(out.read_bytes())
    assert artifacts[0] == artifacts[1]
