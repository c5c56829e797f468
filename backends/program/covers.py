"""The lowering table: for every op that is legal in a packed program, the function that covers it, or why none does.

Functions are named and loaded when they are used, so that the planner can read the table. What is covered as a part
of a site (a layer's attention, a chain of elementwise ops) never comes here on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from fretsaw.backends.lowering import Answer, Lowering, Refusal
from fretsaw.backends.program.expr import BINARY, UNARY
from fretsaw.ir.phases import legal_ops, selectors

if TYPE_CHECKING:
    from fretsaw.backends.program.plan.context import Context
    from fretsaw.ir import Node

    CoverFn = Callable[[Context, Node], None]

PLAN = "fretsaw.backends.program.plan"  # whose planner reads this table


@dataclass(frozen=True)
class Cover(Lowering):
    """A lowering by a function of the planner.

    Args:
        function: ``module.function``; it takes the context and a node that no site has covered.
    """

    function: str

    def load(self) -> CoverFn:
        """The function itself."""
        module, name = self.function.split(".")
        return cast("CoverFn", getattr(import_module(f"{PLAN}.{module}"), name))


ELEMENTWISE = Cover("an epilogue of the kernel before it, or a pass over memory", "misc.cover_elementwise")
LAYER = Cover("part of a layer's attention", "refuse.refuse_stray")
SELECT = Cover("a selector's kernel", "select.cover_select")

_LOWERED: Mapping[str, Cover] = {
    "linear": Cover("a GEMM with its epilogue; q, k and v of a layer as one", "dense.cover_linear"),
    "embedding": Cover("rows of a table", "misc.cover_embedding"),
    "rms_norm": Cover("a norm's kernel; of heads, part of the append to the cache", "misc.cover_norm"),
    "layer_norm": Cover("a norm's kernel", "misc.cover_norm"),
    "take": Cover("a copy of rows", "misc.cover_take"),
    "reshape": Cover("another name for the same memory", "misc.cover_reshape"),
    "slice": Cover("read in place, or a copy of columns", "misc.cover_slice"),
    "rope": LAYER,
    "kv_append": LAYER,
    "keep_window": Cover("the cache's policy in the manifest", "refuse.refuse_stray"),
    "cached_attention": LAYER,
    "segment_attention": LAYER,
    "block_attention": Cover("attention over listed blocks", "sparse_attention.cover_block_attention"),
    "gather_attention": Cover("attention over listed keys", "sparse_attention.cover_gather_attention"),
    "merge_attention": Cover("a merge of two results by their sums", "sparse_attention.cover_merge_attention"),
    "router": Cover("a router's kernel", "moe.cover_router"),
    "experts": Cover("a sort, two grouped GEMMs and a weighted sum", "moe.cover_experts"),
    "segment_pool": Cover("a pooling kernel", "segments.cover_pool"),
    "l2_norm": Cover("a kernel over rows", "segments.cover_l2_norm"),
    "clamp": ELEMENTWISE,
    **dict.fromkeys(UNARY | BINARY, ELEMENTWISE),
    **dict.fromkeys(selectors(), SELECT),
}


_REFUSED: Mapping[str, str] = {
    "eq ne lt le gt ge logical_not where": "kernels have no booleans; masks become attributes of attention",
    "mod pow log sqrt reciprocal erf": "no elementwise kernel computes it",
    "dequantize": "kernels read codes themselves, where they are a constant",
    "cast": "kernels compute in f32 and take indices as they are",
    "matmul": "kernels multiply by weights only, which they read packed",
    "transpose expand concat gather scatter": "no kernel moves elements around like this",
    "iota full": "no kernel makes values out of nothing; constants are folded",
    "softmax sum mean max topk cumsum": "a reduction has a kernel in attention, norms, routers and pooling only",
}
_ANSWERS: Mapping[str, Answer] = {
    **_LOWERED,
    **{op: Refusal(reason) for ops, reason in _REFUSED.items() for op in ops.split()},
}

# In the order of the catalogue. An op that is in neither list is left out, which a test of totality finds.
COVERS: Mapping[str, Answer] = {op: _ANSWERS[op] for op in legal_ops("packed") if op in _ANSWERS}
