"""Cover what says which tokens a row of the cache holds: no kernel, but the ``kv.policy`` of the manifest.

The runtime drops pages between steps. Kernels read ``lens`` slots of a row in order; where some were dropped, slots are
no positions, so attention must not count in slots.
"""

from __future__ import annotations

from fretsaw.backends.tvm.plan.context import Context
from fretsaw.backends.tvm.plan.refuse import refusal
from fretsaw.ir import Node
from fretsaw.ir.cache_policy import WindowPolicy


def cover_keep_window(ctx: Context, node: Node) -> None:
    """Make the policy that of the program.

    Raises:
        LoweringError: a second one, another page size, or attention that counts slots as positions.
    """
    if ctx.policy is not None:
        raise refusal(ctx.graph, node, "the cache has a policy already: one keep_window is possible")
    policy = WindowPolicy(node.int_attr("sinks"), node.int_attr("window"), node.int_attr("page"))
    if policy.page != ctx.options.page_tokens:
        what = f"keep_window drops pages of {policy.page} tokens, the cache has pages of {ctx.options.page_tokens}"
        raise refusal(ctx.graph, node, what, attr="page")
    for reader in ctx.graph.nodes:
        if reader.op in ("block_attention", "gather_attention") or (
            reader.op == "cached_attention" and reader.int_attr("window")
        ):
            raise refusal(
                ctx.graph, reader, f"{reader.op} counts slots as positions, and keep_window moves slots"
            )
    ctx.covered.add(id(node))
    ctx.policy = policy
