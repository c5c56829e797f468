"""Steps in which lists leave nothing out: the same program with dense attention and without what chooses blocks.

Below ``dense_until``, and where a sequence decodes, most methods read everything. Their selectors would be run for
nothing in such steps, so the code has a second entry for them. Full lists give dense attention's bits, so which entry
runs a step is a matter of speed alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fretsaw.backends.program.specs.layers import AttentionSpec
from fretsaw.backends.program.specs.sparse_attention import BlockAttentionSpec, MergeAttentionSpec
from fretsaw.backends.program.steps import Launch, Plan
from fretsaw.ir import Graph, Node, Value
from fretsaw.ir.op import get_op
from fretsaw.ir.traits import ALL_ROWS, Full

ENTRY = "step_dense"
CACHE = 5  # what attention reads of the cache, between its queries and the lists


def full_steps(graph: Graph) -> Full:
    """The rows in which no layer of a packed graph leaves anything out; nothing where that is not known.

    Single keys that are gathered stand beside the blocks of the same layer, so full blocks leave none to them.
    """
    found = ALL_ROWS
    beside = beside_tokens(graph)
    for node in graph.nodes:
        if node.op == "block_attention":
            found &= _attention(graph, node, beside)
        elif node.op == "gather_attention" and node not in beside.values():
            return Full()
    return found


def beside_tokens(graph: Graph) -> dict[Node, Node]:
    """Attention over blocks, and over the single keys that these do not hold, where the two are merged."""
    merges = [node for node in graph.nodes if node.op == "merge_attention"]
    pairs = [(graph.producer(node["o1"]), graph.producer(node["o2"]), node) for node in merges]
    return {a: b for a, b, node in pairs if a is not None and b is not None and _apart(graph, a, b, node)}


def _apart(graph: Graph, blocks: Node, tokens: Node, merge: Node) -> bool:
    """``merge`` joins what the two make of the same queries, and the tokens are those that no listed block holds."""
    if (blocks.op, tokens.op) != ("block_attention", "gather_attention") or merge.attr("lse"):
        return False
    lists, listed = graph.producer(blocks["idx"]), graph.producer(tokens["ids"])
    if lists is None or listed is None or lists.op != "compact_blocks":
        return False
    outside = get_op(listed.op).outside
    rules = ("layer", "scale", "softcap", "decode")
    return (
        outside != ""
        and lists["mask"] == listed[outside]
        and (merge["lse1"], merge["lse2"]) == (blocks.results[1], tokens.results[1])
        and (blocks["kv"], blocks["q"]) == (tokens["kv"], tokens["q"])
        and all(blocks.attr(r) == tokens.attr(r) for r in rules)
    )


def dense_steps(graph: Graph) -> dict[str, object]:
    """``dense`` of the manifest's ``program``: the steps that a second entry runs; empty where there are none.

    Args:
        graph: A packed graph, of a decoder or an encoder.
    """
    full = full_steps(graph)
    if not graph.count("block_attention") or full == Full():
        return {}
    return {"dense": {"entry": ENTRY, "until": full.until, "prompts": full.prompts, "single": full.single}}


def _attention(graph: Graph, node: Node, beside: Mapping[Node, Node]) -> Full:
    lists = graph.producer(node["idx"])
    if (node.attr("lse") and node not in beside) or lists is None or lists.op != "compact_blocks":
        return Full()  # somebody else asks for the sum of exponents, or lists came from elsewhere
    full = _mask(graph, lists["mask"])
    windows = [n for n in node.ints_attr("window") if n]
    if windows:
        full = Full(min(full.until, *windows))
    return full if node.attr("decode") else full | Full(single=True)


def _mask(graph: Graph, mask: Value) -> Full:
    """Rows in which every causal block is in a mask, by what each op promises; nothing of masks from elsewhere."""
    node = graph.producer(mask)
    if node is None:
        return Full()
    op = get_op(node.op)
    attrs = {name: node.attr(name) for name in op.attrs}
    slots = op.slot_names(len(node.operands))
    return op.full_rows(attrs, {slot: _mask(graph, v) for slot, v in zip(slots, node.operands, strict=True)})


def dense_twin(plan: Plan) -> Plan:
    """The plan with dense attention over the same queries, and without launches whose results nobody reads then.

    Weights stay as they are, so that both entries take the same arguments.
    """
    wanted = {plan.source(v) for v in plan.outputs}
    kept: list[Launch] = []
    made = {plan.source(v): launch for launch in plan.launches for v in launch.outputs}
    for launch in reversed([_dense(x, made, plan) for x in plan.launches]):
        if launch.writes or not wanted.isdisjoint(map(plan.source, launch.outputs)):
            wanted.update(plan.source(a) for a in launch.inputs if isinstance(a, Value))
            kept.append(launch)
    return replace(plan, launches=tuple(reversed(kept)))


def _dense(launch: Launch, made: Mapping[Value, Launch], plan: Plan) -> Launch:
    """Attention over lists as attention over everything, and so what merges it with that over single keys; any other
    launch as it is.

    Args:
        made: Launches by what they make.
    """
    spec = launch.spec
    if isinstance(spec, MergeAttentionSpec):
        first = launch.inputs[0]
        assert isinstance(first, Value)
        whole = _dense(made[plan.source(first)], made, plan)
        return replace(launch, spec=whole.spec, inputs=whole.inputs, outputs=launch.outputs[:1], scalars=whole.scalars)
    if not isinstance(spec, BlockAttentionSpec):
        return launch
    q, *rest = launch.inputs
    cache, sinks = rest[:CACHE], rest[CACHE + 2 :]  # between them the lists and their lengths
    dense = AttentionSpec(
        spec.heads, spec.kv_heads, spec.head_dim, spec.value_dim, spec.page, spec.scale, window=0,
        softcap=spec.softcap, sinks=spec.sinks, kv=spec.kv,
    )  # fmt: skip
    return replace(launch, spec=dense, inputs=(q, *cache, *sinks), outputs=launch.outputs[:1])
