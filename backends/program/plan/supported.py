"""What the tvm backend lowers. Everything else is refused here, by name, before anything is built."""

from __future__ import annotations

from collections.abc import Sequence

from fretsaw.backends.program.expr import BINARY, UNARY
from fretsaw.backends.program.plan.refuse import CAPTURED
from fretsaw.backends.program.plan.select import SELECT
from fretsaw.ir import Graph, Node
from fretsaw.ir.errors import LoweringError
from fretsaw.ir.excerpt import excerpt, place

SEGMENTS = frozenset(("segment_attention", "segment_pool", "l2_norm"))
STRUCTURAL = frozenset(("linear", "embedding", "rms_norm", "layer_norm", "rope", "kv_append", "cached_attention",
                        "keep_window", "router", "experts", "take", "reshape", "slice", "clamp", "cast"))  # fmt: skip
SPARSE = frozenset(("block_attention", "gather_attention", "merge_attention"))
SUPPORTED = STRUCTURAL | SEGMENTS | SPARSE | SELECT | UNARY | BINARY


def check_supported(graph: Graph) -> None:
    """Refuse a graph with ops that have no lowering.

    Raises:
        LoweringError: lists every such op with its first place and the number of places.
    """
    if graph.phase != "packed":
        raise LoweringError(
            f"the tvm backend lowers packed programs, this one is {graph.phase}", where=graph.name,
            hint="run the pass pipeline first",
        )  # fmt: skip
    missing: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.op not in SUPPORTED:
            missing.setdefault(node.op, []).append(node)
    if missing:
        first = next(iter(missing.values()))[0]
        what = f"the tvm backend has no lowering for {', '.join(sorted(missing))}"
        places = [f"  {op}: {_count(at)}, first {place(at[0])}" for op, at in sorted(missing.items())]
        context = "\n".join([excerpt(graph, first), *places])
        raise LoweringError(what, where=place(first), when="lowering for tvm", context=context, hint=CAPTURED)


def _count(nodes: Sequence[Node]) -> str:
    return f"{len(nodes)} places" if len(nodes) > 1 else "1 place"
