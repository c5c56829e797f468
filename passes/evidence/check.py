"""Run a graph before and after a pass on one small seeded input and compare what comes out.

``bits`` compares exactly in the shipped dtype. ``algebra`` runs both graphs in float64 too where they differ, where
rounding is too small to hide a mistake: the largest difference must stay under eps64 x width x nodes. The difference
in the shipped dtype is reported beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fretsaw.ir import Const, Graph, Node, OpData, ReferenceKvCache, TensorType, Value, run
from fretsaw.ir.consts import ArrayData
from fretsaw.ir.errors import PassError
from fretsaw.passes.api import Pass
from fretsaw.passes.kit.ledger import Evidence

Outputs = list[np.ndarray]
TOKENS = 16
LARGEST = 50_000_000  # parameters; more are not run with the reference interpreter


def parameters(graph: Graph) -> int:
    """Elements of all constants, each counted once."""
    sizes = (const.type.numel for const in graph.consts.values())
    return sum(n for n in sizes if isinstance(n, int))


def feeds(graph: Graph, seed: int = 0, tokens: int = TOKENS) -> dict[str, object]:
    """One sequence of ``tokens`` seeded ids for a captured ([1, S]) or packed ([T]) graph, all rows wanted."""
    sizes = (n["table"].tensor.shape[0] for n in graph.nodes if n.op == "embedding")
    high = min((size for size in sizes if isinstance(size, int)), default=100)
    ids = np.random.default_rng(seed).integers(0, high, tokens)
    position = np.arange(tokens)
    layers = graph.count("kv_append")
    cache = ReferenceKvCache(layers)
    cache.begin_step([tokens])
    known: Mapping[str, object] = {
        "input_ids": ids[None].astype(np.int64), "positions": position.astype(np.int32), "kv": cache,
        "tokens": ids.astype(np.int32), "rows": position.astype(np.int32),
    }  # fmt: skip
    out = {v.name: known[v.name] for v in graph.inputs}
    if "input_ids" in out and "positions" in out:
        out["positions"] = position[None].astype(np.int64)
    return out


class Checker:
    """Checks the passes of one pipeline. Remembers the outputs of the last graph, which the next pass starts from, so
    a check costs one run in f32, and one in f64 where f32 outputs differ.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._last: dict[str, tuple[Graph, Outputs]] = {}

    def outputs(self, graph: Graph, dtype: str) -> Outputs:
        """What ``graph`` computes in ``dtype`` (f32 means: as it is)."""
        found = self._last.get(dtype)
        if found is not None and found[0] is graph:
            return found[1]
        shown = as_f64(graph) if dtype == "f64" else graph
        result = [a.reshape(-1) for a in run(shown, feeds(graph, self.seed))]
        self._last[dtype] = (graph, result)
        return result

    def check(self, p: Pass, before: Graph, after: Graph) -> Evidence:
        """Numbers that show what the pass did to the outputs.

        Raises:
            PassError: the outputs differ by more than the class allows.
        """
        if after is before:
            return {"status": "passed", "changed": 0}
        if p.keeps == "budget":
            return {"status": "unchecked: no budget check yet"}
        count = parameters(before)
        if count > LARGEST:
            return {"status": f"unchecked: too large ({count} parameters)"}
        if not {v.name for v in before.inputs} <= {"input_ids", "positions", "tokens", "rows", "kv"}:
            return {"status": "unchecked: inputs are not those of a language model"}
        f32 = difference(self.outputs(before, "f32"), self.outputs(after, "f32"))
        if f32 == 0:
            return {"status": "passed", "changed": 1, "max_error": 0.0}
        if p.keeps == "bits":
            raise PassError(
                f"{p.name} promises identical outputs; they differ by {f32:.3g} of the largest", when=p.name
            )
        f64 = difference(self.outputs(before, "f64"), self.outputs(after, "f64"))
        bound = algebra_bound(before, rounds_constants=p.rounds_constants)
        if not f64 <= bound:
            raise PassError(
                f"{p.name} promises that only rounding moves; in float64 outputs differ by {f64:.3g}, "
                f"bound {bound:.3g}",
                when=p.name,
            )
        return {"status": "passed", "changed": 1, "max_error": f32, "max_error_f64": f64, "bound_f64": bound}


def algebra_bound(graph: Graph, *, rounds_constants: bool = False) -> float:
    """eps64 x widest reduction x nodes: every node may round every term of its reduction anew. Where a constant is
    rounded from 32 bits, eps32 x nodes."""
    if rounds_constants:
        return float(np.finfo(np.float32).eps) * len(graph.nodes)
    widths = [
        v.tensor.shape[-1] for n in graph.nodes for v in n.operands if isinstance(v.type, TensorType) and v.type.rank
    ]
    width = max((w for w in widths if isinstance(w, int)), default=1)
    return float(np.finfo(np.float64).eps) * width * len(graph.nodes)


def difference(before: Outputs, after: Outputs) -> float:
    """Largest absolute difference of any output over the largest magnitude of that output; inf where shapes differ."""
    worst = 0.0
    for a, b in zip(before, after, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if not np.array_equal(a, b, equal_nan=True):
            error = float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-300))
            worst = max(worst, error if error == error else float("inf"))  # NaN on one side only
    return worst


def as_f64(graph: Graph) -> Graph:
    """The graph with every f32 value in f64; constants are widened by their shortest decimal (1e-05 stays 1e-05)."""
    consts = {_wide(v): _wide_const(c) for v, c in graph.consts.items()}
    return replace(
        graph,
        inputs=tuple(map(_wide, graph.inputs)), consts=consts, nodes=tuple(map(_wide_node, graph.nodes)),
        outputs=tuple(map(_wide, graph.outputs)),
    )  # fmt: skip


def _wide(value: Value) -> Value:
    kind = value.type
    return (
        Value(value.name, replace(kind, dtype="f64")) if isinstance(kind, TensorType) and kind.dtype == "f32" else value
    )


def _wide_node(node: Node) -> Node:
    attrs = tuple((k, "f64" if k == "dtype" and v == "f32" else v) for k, v in node.attrs)
    if node.op == "full" and node.out.tensor.dtype == "f32":  # f32 is its default
        attrs = tuple(sorted({**dict(attrs), "dtype": "f64"}.items()))
    return replace(
        node, operands=tuple(map(_wide, node.operands)), results=tuple(map(_wide, node.results)), attrs=attrs
    )


def _wide_const(const: Const) -> Const:
    if const.type.dtype != "f32":
        return const
    kind = replace(const.type, dtype="f64")
    data = const.data
    if isinstance(data, OpData):
        attrs = tuple((k, "f64" if k == "dtype" and v == "f32" else v) for k, v in data.attrs)
        return Const(kind, OpData(data.op, tuple(map(_wide_const, data.operands)), attrs, data.result))
    if isinstance(data, ArrayData) and data.array.size <= 4096:
        flat = [float(str(x)) for x in data.array.ravel()]
        return Const(kind, ArrayData(np.array(flat, np.float64).reshape(data.array.shape)))
    return Const(kind, data)
