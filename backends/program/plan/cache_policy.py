"""Cover what says which tokens rows of the cache hold: no kernel, but the ``kv.policy`` of the manifest.

The runtime drops pages between steps. Kernels read ``lens`` slots of a row in order; where some were dropped, slots are
no positions, so attention must not count in slots.
"""

from __future__ import annotations

from fretsaw.backends.program.plan.context import Context
from fretsaw.backends.program.plan.refuse import refusal
from fretsaw.ir import Node
from fretsaw.ir.cache_policy import WindowPolicy


def cover_keep_window(ctx: Context) -> None:
    """Make the windows of all layers the policy of the program.

    Raises:
        LoweringError: layers differ, another page size, or attention that counts slots as positions.
    """
    windows = [node for node in ctx.graph.nodes if node.op == "keep_window"]
    if not windows:
        return
    first, layers = windows[0], {node.int_attr("layer") for node in windows}
    policy = _policy(first)
    for node in ctx.graph.nodes:
        other = node.op == "keep_window" and _policy(node) != policy
        if other or (node.op == "kv_append" and node.int_attr("layer") not in layers):
            raise refusal(ctx.graph, node, "one window holds for the whole cache, this layer has another one or none")
        if node.op in ("block_attention", "gather_attention") or (
            node.op == "cached_attention" and node.int_attr("window")
        ):
            raise refusal(ctx.graph, node, f"{node.op} counts slots as positions, and keep_window moves slots")
    if policy.page != ctx.options.page_tokens:
        what = f"keep_window drops pages of {policy.page} tokens, the cache has pages of {ctx.options.page_tokens}"
        raise refusal(ctx.graph, first, what, attr="page")
    ctx.covered.update(map(id, windows))
    ctx.policy = policy


def _policy(node: Node) -> WindowPolicy:
    return WindowPolicy(node.int_attr("sinks"), node.int_attr("window"), node.int_attr("page"))
