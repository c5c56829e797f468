"""Keep the first tokens of every sequence and its last ones in the cache, drop the others page by page.

                                           keep_window(%kv) {layer, sinks, window}
    %o = cached_attention(%kv, %q)   ==>   %o = cached_attention(%kv, %q)

Why:    memory and work of a sequence stop growing with its length.
Needs:  a packed decoder whose attention reads the cache whole.
Keeps:  budget: tokens behind the window are not read.
Stops:  a layer has one policy at most.
Source: StreamingLLM, arXiv:2309.17453 (attention sinks), with the positions that tokens had.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fretsaw.ir import Graph, Node, make_node
from fretsaw.ir.cache_policy import WindowPolicy
from fretsaw.ir.kv import BLOCK
from fretsaw.passes.api import OnePer, Outcome, graph_pass


@dataclass(frozen=True)
class Window:
    """What rows of the cache hold.

    Args:
        sinks: First tokens of a sequence, rounded up to whole pages.
        window: Last tokens of a sequence, rounded up to whole pages.
    """

    sinks: int = 4
    window: int = 1024


def begins(options: Window) -> int:
    """Tokens of a text at which nothing has been dropped."""
    policy = WindowPolicy(options.sinks, options.window, BLOCK)
    return policy.step_end(0)


@graph_pass(phase="packed", keeps="budget", sites=OnePer("cached_attention"), options=Window(), begins=begins)
def window_policy(graph: Graph, options: Window) -> Outcome:
    """The graph with the policy of every layer before what reads the layer's cache."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "cached_attention":
            attrs = {"layer": node.int_attr("layer"), "sinks": options.sinks, "window": options.window}
            nodes.append(make_node("keep_window", [node["kv"]], attrs, (), node.loc.touched("window_policy")))
        nodes.append(node)
    return Outcome(replace(graph, nodes=tuple(nodes)), tuple(n for n in nodes if n.op == "cached_attention"))
