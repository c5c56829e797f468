"""``fretsaw cache``: what is shown, emptied and said where there is no cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fretsaw.backends.kernel_cache import GRAPHS, KernelCache, Place
from fretsaw.tools.cli import run

KEY = "ab" + "0" * 62


def test_shows_and_empties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FRETSAW_CACHE", str(tmp_path))
    KernelCache(Place(tmp_path)).put(KEY, bytes(951))
    KernelCache(Place(tmp_path), kind=GRAPHS).put(KEY, bytes(1952))
    assert run(["cache"]) == 0
    graphs, kernels = capsys.readouterr().out.splitlines()
    assert graphs == f"{tmp_path}: 1 captured graphs, 2.00 kB of 537 MB, the oldest used within the hour"
    assert kernels == f"{tmp_path}: 1 compiled kernels, 1.00 kB of 537 MB, the oldest used within the hour"
    assert run(["cache", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    place = {"folder": str(tmp_path), "why": "", "limit_bytes": 512 << 20}
    assert shown == {
        "graphs": {**place, "entries": 1, "bytes": 2000},
        "kernels": {**place, "entries": 1, "bytes": 1000},
    }
    assert run(["cache", "clear"]) == 0
    assert "1 compiled kernels deleted (1.00 kB)" in capsys.readouterr().out
    assert run(["cache", "--json"]) == 0
    left = json.loads(capsys.readouterr().out)
    assert left["kernels"]["entries"] == left["graphs"]["entries"] == 0 and list(tmp_path.iterdir()) == []


def test_says_when_there_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FRETSAW_CACHE", "off")
    assert run(["cache"]) == 0
    assert capsys.readouterr().out == "FRETSAW_CACHE is off: nothing is kept for the next compile\n"
    monkeypatch.setenv("FRETSAW_CACHE", "/dev/null")
    assert run(["cache", "clear"]) == 0
    assert "cannot make /dev/null" in capsys.readouterr().out
    assert run(["cache", "shrink"]) == 2
