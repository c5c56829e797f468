"""Steps in which lists leave nothing out: the same program with dense attention and without what chooses blocks.

Below ``dense_until``, and where a sequence decodes, most methods read everything. Their selectors would be run for
nothing in such steps, so the code has a second entry for them. Full lists give dense attention's bits, so which entry
runs a step is a matter of speed alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from operator import and_

from fretsaw.backends.tvm.specs import AttentionSpec
from fretsaw.backends.tvm.specs_sparse_attention import BlockAttentionSpec
from fretsaw.backends.tvm.steps import Launch, Plan
from fretsaw.ir import Graph, Node, Value
from fretsaw.ir.kv import BLOCK
from fretsaw.ir.op import get_op

ENTRY = "step_dense"
CACHE = 5  # what attention reads of the cache, between its queries and the lists
EVERYWHERE = 2**31 - 1  # more tokens than a sequence has


@dataclass(frozen=True)
class Full:
    """Rows in which every key up to the row's own is read.

    Args:
        until: Those whose query block ends at this position or before, in tokens.
        prompts: Those of sequences with more than one token in the step.
        single: Those of sequences with one token in it.
    """

    until: int = 0
    prompts: bool = False
    single: bool = False

    def __and__(self, other: Full) -> Full:
        return Full(min(self.until, other.until), self.prompts and other.prompts, self.single and other.single)

    def __or__(self, other: Full) -> Full:
        return Full(max(self.until, other.until), self.prompts or other.prompts, self.single or other.single)


def full_steps(graph: Graph) -> Full:
    """The rows in which no layer of a packed graph leaves anything out; nothing where that is not known."""
    found = Full(EVERYWHERE, True, True)
    for node in graph.nodes:
        if node.op == "block_attention":
            found &= _attention(graph, node)
        elif node.op == "gather_attention":
            return Full()
    return found


def dense_steps(graph: Graph) -> dict[str, object]:
    """``dense`` of the manifest's ``program``: the steps that a second entry runs; empty where there are none.

    Args:
        graph: A packed graph, of a decoder or an encoder.
    """
    full = full_steps(graph)
    if not graph.count("block_attention") or full == Full():
        return {}
    return {"dense": {"entry": ENTRY, "until": full.until, "prompts": full.prompts, "single": full.single}}


def _attention(graph: Graph, node: Node) -> Full:
    lists = graph.producer(node["idx"])
    if node.attr("lse") or lists is None or lists.op != "compact_blocks":
        return Full()  # a sum of exponents is asked for, or lists came from elsewhere
    full = _mask(graph, lists["mask"])
    windows = [n for n in _numbers(node, "window") if n]
    if windows:
        full = Full(min(full.until, *windows))
    return full if node.attr("decode") else full | Full(single=True)


def _mask(graph: Graph, mask: Value) -> Full:
    """Rows in which every causal block is in a mask, by what each op promises; a selector keeps what is forced."""
    node = graph.producer(mask)
    if node is None:
        return Full()
    if node.op == "causal_blocks":
        return Full(EVERYWHERE, True, True)
    if node.op == "prompt_blocks":
        return Full(prompts=True)
    if node.op == "union_blocks":
        return _mask(graph, node["a"]) | _mask(graph, node["b"])
    if node.op == "flex_switch":
        return _mask(graph, node["lines"]) & _mask(graph, node["few"])
    if node.op == "pick_heads":
        picked = [node.operands[i] for i in sorted(set(_numbers(node, "choice")))]
        return reduce(and_, (_mask(graph, m) for m in picked))
    if node.op == "span_blocks":
        windows = [n for n in _numbers(node, "window") if n]
        return Full(max(node.int_attr("dense_until"), min(windows))) if windows else Full(EVERYWHERE, True, True)
    op = get_op(node.op)
    full = Full(node.int_attr("dense_until")) if "dense_until" in op.attrs else Full()
    if node.op == "select_top_k":  # as many blocks as it takes
        full |= Full(node.int_attr("k") * BLOCK)
    return full | _mask(graph, node["forced"]) if "forced" in op.slots else full


def _numbers(node: Node, name: str) -> tuple[int, ...]:
    value = node.attr(name) or ()
    assert isinstance(value, tuple)
    return tuple(n for n in value if isinstance(n, int))


def dense_twin(plan: Plan) -> Plan:
    """The plan with dense attention over the same queries, and without launches whose results nobody reads then.

    Weights stay as they are, so that both entries take the same arguments.
    """
    wanted = {plan.source(v) for v in plan.outputs}
    kept: list[Launch] = []
    for launch in reversed([_dense(x) for x in plan.launches]):
        if launch.writes or not wanted.isdisjoint(map(plan.source, launch.outputs)):
            wanted.update(plan.source(a) for a in launch.inputs if isinstance(a, Value))
            kept.append(launch)
    return replace(plan, launches=tuple(reversed(kept)))


def _dense(launch: Launch) -> Launch:
    """Attention over lists as attention over everything; any other launch as it is."""
    spec = launch.spec
    if not isinstance(spec, BlockAttentionSpec):
        return launch
    q, *rest = launch.inputs
    cache, sinks = rest[:CACHE], rest[CACHE + 2 :]  # between them the lists and their lengths
    dense = AttentionSpec(
        spec.heads, spec.kv_heads, spec.head_dim, spec.value_dim, spec.page, spec.scale, window=0,
        softcap=spec.softcap, sinks=spec.sinks, kv=spec.kv,
    )  # fmt: skip
    return replace(launch, spec=dense, inputs=(q, *cache, *sinks))
