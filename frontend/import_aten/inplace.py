"""Read updates in place as new values: later readers of the target read the update's result instead.

    %m = zeros_like(%g)                        %m = zeros_like(%g)
    scatter_(%m, 1, %i, 1)              ==>    %u = scatter(%m, 1, %i, 1)
    f(%m)                                      f(%u)

That is the same program only when nothing else sees the memory: the target must be a fresh result without
views, or the only view of one that nothing else reads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from fretsaw.ir.errors import CaptureError


def make_functional(graph: fx.Graph, fail: Callable[[fx.Node, str], CaptureError]) -> None:
    """Redirect readers of updated values; raise ``fail`` at an update of memory that others may see."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not mutates(node):
            continue
        target = node.args[0]
        assert isinstance(target, fx.Node)
        views = any(_is_view(user) for user in target.users if user is not node)
        if views or not _fresh(target):
            raise fail(node, "an update in place of memory that others may see is not supported")
        for reader in [u for u in target.users if order[u] > order[node]]:
            reader.replace_input_with(target, node)


def _fresh(target: fx.Node) -> bool:
    """The memory of ``target`` is a result of this program that only ``target`` itself shows."""
    while _is_view(target):
        base = target.args[0]
        assert isinstance(base, fx.Node)
        if len(base.users) != 1:
            return False
        target = base
    return target.op == "call_function"


def mutates(node: fx.Node) -> bool:
    """The node writes to its first argument."""
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _is_view(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return False
    return any(r.alias_info is not None for r in target._schema.returns)
