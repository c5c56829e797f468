"""A graph as bytes, to be read back in another process: its text, what its text leaves out, and no weights.

Text says of a constant in a file which file, and of one in memory its digest. Added here are the arrays, and the
names that constants have in the checkpoint.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from fretsaw.ir.consts import ArrayData, Const, DigestData, FileData, OpData
from fretsaw.ir.errors import FretsawError
from fretsaw.ir.node import Graph
from fretsaw.ir.parser import parse
from fretsaw.ir.printer import to_text


def dump_graph(graph: Graph, folder: Path, extra: Mapping[str, Sequence[str]]) -> bytes | None:
    """``graph`` as bytes, or None where it cannot be read back: a constant lies outside of ``folder``.

    Args:
        folder: Holds the files of all constants; the bytes name them relative to it.
        extra: Lists of names to keep beside it.
    """
    leaves = [leaf for const in graph.consts.values() for leaf in _walk(const)]
    files = [c.data.path for c in leaves if isinstance(c.data, FileData)]
    if any(path.parent != folder for path in files):
        return None
    arrays = {c.data.digest: c.data.array for c in leaves if isinstance(c.data, ArrayData)}
    head = {"text": to_text(graph), "sources": [c.source for c in leaves], "extra": dict(extra)}
    out = io.BytesIO()
    np.savez(out, head=np.frombuffer(json.dumps(head).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def load_graph(data: bytes, folder: Path) -> tuple[Graph, Mapping[str, Sequence[str]]] | None:
    """The graph and ``extra``, or None where ``data`` does not hold what it says."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        head = json.loads(arrays.pop("head").tobytes())
        graph = parse(head["text"])
        sources = iter(head["sources"])
        consts = {value: _filled(const, sources, arrays, folder) for value, const in graph.consts.items()}
        graph = replace(graph, consts=consts)
        if to_text(graph) != head["text"]:
            return None
        return graph, head["extra"]
    except (ValueError, KeyError, OSError, EOFError, BadZipFile, StopIteration, FretsawError):
        return None


def _walk(const: Const) -> Iterator[Const]:
    """The constant and all that it is computed from, in a fixed order."""
    yield const
    if isinstance(const.data, OpData):
        for operand in const.data.operands:
            yield from _walk(operand)


def _filled(const: Const, sources: Iterator[str], arrays: Mapping[str, np.ndarray], folder: Path) -> Const:
    source, data = next(sources), const.data
    if isinstance(data, OpData):
        operands = tuple(_filled(c, sources, arrays, folder) for c in data.operands)
        return Const(const.type, replace(data, operands=operands), source)
    if isinstance(data, FileData):
        return Const(const.type, replace(data, path=folder / data.path.name), source)
    if isinstance(data, DigestData):
        return Const(const.type, ArrayData(arrays[data.digest]), source)
    return Const(const.type, data, source)
