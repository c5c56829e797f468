"""Replace attention over the KV cache by attention over key blocks that a method chooses.

    kv_append(%kv, %k, %v)                      kv_append(%kv, %k, %v)
    %o = cached_attention(%kv, %q)     ==>      %m = selector ops of the method (%kv, %q)      bool [QB, G, KB]
                                                %idx, %cnt = compact_blocks(%m)
                                                %o = block_attention(%kv, %q, %idx, %cnt)

where a method lists single keys too (columns of vertical-slash, or block_tokens: blocks that are read at a distance):
                                                %o1, %l1 = block_attention(%kv, %q, %idx, %cnt) {lse}
                                                %ids, %n = line_tokens(%kv, %columns, %m)   keys outside of the blocks
                                                %o2, %l2 = gather_attention(%kv, %q, %ids, %n)
                                                %o = merge_attention(%o1, %l1, %o2, %l2)

Why:    attention is quadratic in the prompt; most of its mass lies in few blocks of keys, and where is cheap to guess.
Needs:  causal attention over a cache, one size for keys and values, no soft cap where scores choose.
Keeps:  budget: what is left out is measured on calibration text and limited by --max-kl and --min-top1.
Stops:  each edit leaves one cached_attention fewer.
Source: the methods' own, each in passes/sparse/methods/; docs/sparse_attention.md.
"""

from __future__ import annotations

from fretsaw.ir import Graph
from fretsaw.passes.api import OnePer, Outcome, graph_pass
from fretsaw.passes.sparse.calibrate.begin import begins
from fretsaw.passes.sparse.calibrate.report import attention_report
from fretsaw.passes.sparse.calibrate.search import plan_search
from fretsaw.passes.sparse.options import Sparse
from fretsaw.passes.sparse.place import put_lists


@graph_pass(
    phase="packed", keeps="budget", sites=OnePer("cached_attention"), options=Sparse, repeats=True, begins=begins,
    inspect=attention_report, prepare=plan_search,
)  # fmt: skip
def sparse_attention(graph: Graph, options: Sparse) -> Outcome:
    """Rewrite the layers that the options name.

    Raises:
        UsageError: no method is named, or it lacks what it cannot work without.
        PassError: the program has no attention over a cache, or the options name layers or heads that it has not.
    """
    return put_lists(graph, options)
