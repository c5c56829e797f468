"""What the tvm backend lowers. Everything else is refused here, by name, before anything is built."""

from __future__ import annotations

from fretsaw.backends.tvm.expr import BINARY, UNARY
from fretsaw.ir import Graph
from fretsaw.ir.errors import LoweringError

STRUCTURAL = frozenset(("linear", "embedding", "rms_norm", "layer_norm", "rope", "kv_append", "cached_attention",
                        "router", "experts", "take", "reshape", "slice", "clamp", "cast"))  # fmt: skip
SUPPORTED = STRUCTURAL | UNARY | BINARY


def check_supported(graph: Graph) -> None:
    """Refuse a graph with ops that have no lowering.

    Raises:
        LoweringError: lists every such op with its first place and the number of places.
    """
    if graph.phase != "packed":
        raise LoweringError(
            f"the tvm backend lowers packed programs, this one is {graph.phase}", where=graph.name,
            hint="encoders have no packed form yet" if graph.phase != "captured" else "run the pass pipeline first",
        )  # fmt: skip
    missing: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.op not in SUPPORTED:
            place = "   ".join(filter(None, [node.loc.module, node.loc.source]))
            missing.setdefault(node.op, []).append(place or f"%{node.results[0].name}")
    if missing:
        raise LoweringError(
            f"the tvm backend has no lowering for {', '.join(sorted(missing))}",
            where=next(iter(missing.values()))[0],
            context="\n".join(f"{op}: {len(at)} places, first {at[0]}" for op, at in sorted(missing.items())),
            hint="this architecture can be captured and run by the reference interpreter, not compiled yet",
        )
