"""A stored graph comes back as it was: text, constants, names in the checkpoint; what is damaged comes back as None."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fretsaw.ir import Const, FileData, Graph, OpData, TensorType, Value, parse, to_text
from fretsaw.ir.stored import dump_graph, load_graph

TEXT = """graph @g(%x: f32[B, 4]) -> (%z) {
  dim B in [1, 64]
  const %w: f32[4, 4] = declared("w")
  const %b: f32[4] = data([1.0, nan, -inf, 0.1])
  %y: f32[B, 4] = linear(%x, %w)  // layers.0.proj (model.py:3) <rule>
  %z: f32[B, 4] = add(%y, %b)
}"""


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    """Its weight is a cast of a file's f16, plus an array in memory."""
    stored = np.arange(16, dtype=np.float16).reshape(4, 4)
    (tmp_path / "w.bin").write_bytes(b"head" + stored.tobytes())
    file = Const(TensorType("f16", (4, 4)), FileData(tmp_path / "w.bin", 4, 32, "f16", (4, 4)), "model.w")
    wide = Const(TensorType("f32", (4, 4)), OpData("cast", (file,), (("dtype", "f32"),)), "model.w")
    array = Const.of(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4), source="made")
    total = Const(wide.type, OpData("add", (wide, array), ()), "sum")
    found = parse(TEXT)
    consts = {v: total if v.name == "w" else c for v, c in found.consts.items()}
    return Graph(found.name, found.inputs, consts, found.nodes, found.outputs, found.dims, found.phase)


def sources(const: Const) -> Iterator[str]:
    yield const.source
    if isinstance(const.data, OpData):
        for operand in const.data.operands:
            yield from sources(operand)


def weight(graph: Graph) -> Const:
    return graph.consts[Value("w", TensorType("f32", (4, 4)))]


def test_comes_back_from_another_folder(graph: Graph, tmp_path: Path) -> None:
    data = dump_graph(graph, tmp_path, {"unused": ["a", "b"]})
    assert data is not None
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(tmp_path / "w.bin", moved / "w.bin")
    found = load_graph(data, moved)
    assert found is not None
    again, extra = found
    assert to_text(again) == to_text(graph) and extra == {"unused": ["a", "b"]}
    assert list(sources(weight(again))) == ["sum", "model.w", "model.w", "made"]
    want = np.arange(16, dtype=np.float32).reshape(4, 4) + np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    assert np.array_equal(weight(again).load(), want)


def test_a_constant_elsewhere_is_not_kept(graph: Graph, tmp_path: Path) -> None:
    assert dump_graph(graph, tmp_path / "other", {}) is None


def test_what_does_not_hold_is_none(graph: Graph, tmp_path: Path) -> None:
    data = dump_graph(graph, tmp_path, {})
    assert data is not None
    for bad in (b"", b"graph", data[:-30], data.replace(b'"model.w", ', b"", 1), data.replace(b"linear", b"linaer")):
        assert load_graph(bad, tmp_path) is None
