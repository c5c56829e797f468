"""Putting attention over lists in the place of attention over everything, in the layers that options name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fretsaw.ir import Attr, Graph, Node, Value
from fretsaw.ir.errors import PassError, UsageError
from fretsaw.passes.api import Decline, Edit, Outcome, rule
from fretsaw.passes.kit.driver import run_rules
from fretsaw.passes.kit.liveness import prune
from fretsaw.passes.kit.numbering import merge_equal
from fretsaw.passes.sparse.heads import Choice, choose, merged, said
from fretsaw.passes.sparse.method import Selection
from fretsaw.passes.sparse.methods import METHODS
from fretsaw.passes.sparse.options import Sparse
from fretsaw.passes.sparse.site import Site

# Symbols of arrays over blocks, by what a step and a cache could hold; promises of no memory.
DIMS = {"B": (1, 1 << 20), "KB": (1, 1 << 20), "QB": (1, 1 << 21)}


def put_lists(graph: Graph, options: Sparse) -> Outcome:
    """Rewrite the layers that the options name.

    Raises:
        UsageError: no method is named, or it lacks what it cannot work without.
        PassError: the program has no attention over a cache, or the options name layers or heads that it has not.
    """
    if type(options) is Sparse:
        options.variant({})
    if options.missing():
        raise UsageError(f"the method {options.method} of sparse_attention needs {options.missing()}")
    _check_layers(graph, options)
    opened = replace(graph, dims=dict(sorted({**graph.dims, **DIMS}.items())))
    outcome = run_rules(opened, (replace(place_lists, name="sparse_attention", options=options),))
    if not outcome.hits and outcome.declines and all(d.already for d in outcome.declines):
        reasons = dict.fromkeys(d.reason for d in outcome.declines)
        what = f"sparse_attention:method={options.method} leaves every layer as it is: {'; '.join(reasons)}"
        raise PassError(what, where=graph.name, when="pass sparse_attention", hint="name layers that it should reach")
    # Masks without scores depend on the lengths of a step alone, so one list serves every layer; heads of one layer
    # with different thresholds have the same scores.
    return replace(outcome, graph=prune(merge_equal(outcome.graph)[0]) if outcome.hits else graph)


@rule(root="cached_attention", phase="packed", keeps="budget", options=Sparse)
def place_lists(root: Node, g: Graph, options: Sparse) -> Edit | Decline:
    """The edit of one layer, or why it stays."""
    named = root.int_attr("layer") in options.layers
    append = next((n for n in g.nodes if n.op == "kv_append" and n.attr("layer") == root.attr("layer")), None)
    if append is None:
        return Decline("no node appends to the cache of its layer", at=root)
    site = Site(Edit(), g, root, append)
    choices = choose(site, options, max(_layers(g)) + 1)
    if isinstance(choices, str):
        return Decline(choices, at=root, already=True)
    window = _window(root)
    if window:
        return Decline(f"its sliding window of {window} keys is a budget already", at=root, already=not named)
    reason = unfit(site, choices)
    if reason:
        return Decline(reason, at=root)
    return rewrite(site, choices)


def unfit(site: Site, choices: Sequence[Choice]) -> str:
    """Why the methods cannot serve this attention; empty where they can."""
    node, size = site.node, site.head_size
    if node.attr("value_size") != size:
        return (
            f"keys have {size} features and values {node.attr('value_size')}, as in multi-head latent attention, where "
            "block selectors lose a third of the answers"
        )
    scored = [c.options.method for c in choices if METHODS[c.options.method].reads_scores]
    if node.attr("softcap") and scored:
        return f"it caps its logits at {node.attr('softcap')}, which the scores of {scored[0]} know nothing of"
    misfits = [reason for c in choices if (reason := METHODS[c.options.method].fits(site, c.options))]
    if misfits:
        return misfits[0]
    alone = [c.options.method for c in choices if c.options.whole_layer()]
    if alone and len(choices) > 1:
        return f"{alone[0]} turns positions for a whole layer, and another method has heads in it"
    decode = {c.options.decodes() for c in choices if c.options.method != "dense"}
    if len(decode) > 1:
        return "some of its heads decode by lists and others densely; a layer does one of them"
    return ""


def rewrite(site: Site, choices: tuple[Choice, ...]) -> Edit:
    """Selector ops, lists, and attention over them."""
    chosen = merged(site, choices)
    idx, cnt = site.emit_all("compact_blocks", chosen.mask)
    kept = ("layer", "scale", "value_size", "softcap")
    attrs: dict[str, Attr] = {k: v for k, v in site.node.attrs if k in kept}
    if any(chosen.window):
        attrs |= {"sink": chosen.sink, "window": chosen.window}
    flags = {"decode": chosen.decode, "whole_prompt": any(c.options.whole_prompt() for c in choices)}
    attrs |= {k: v for k, v in flags.items() if v} | {"method": said(choices, site.heads)}
    sinks = [v for v in [site.node.get("sinks")] if v is not None]
    operands = [site.kv, site.q, idx, cnt, *sinks]
    beside = _single_keys(site, chosen)
    if beside is None:
        site.edit.rewrite_node(site.node, "block_attention", operands, attrs)
        return site.edit
    lists, turn = beside
    of_keys = {k: v for k, v in attrs.items() if k not in ("sink", "window")} | turn
    blocks = site.emit_all("block_attention", *operands, **attrs, lse=True)
    keys = site.emit_all("gather_attention", site.kv, site.q, *lists, **of_keys)
    site.edit.rewrite_node(site.node, "merge_attention", [*blocks, *keys], {})
    return site.edit


def _single_keys(site: Site, chosen: Selection) -> tuple[tuple[Value, ...], dict[str, Attr]] | None:
    """Lists of keys that no listed block holds, with what turns them, and attributes of it; None: there are none."""
    if chosen.columns is not None:
        own = chosen.columns
        made = site.emit_all(
            "line_tokens", site.kv, own.scores, chosen.mask, columns=own.counts, first_columns=own.first
        )
        return made, {}
    if chosen.far is not None:
        far = chosen.far
        made = site.emit_all("block_tokens", site.kv, far.blocks, chosen.mask)
        return (*made, far.freq), {"distance": far.distance, "layout": far.layout}
    return None


def _window(node: Node) -> int:
    return node.int_attr("window")


def _layers(graph: Graph) -> list[int]:
    return sorted(n.int_attr("layer") for n in graph.nodes if n.op in ("cached_attention", "block_attention"))


def _check_layers(graph: Graph, options: Sparse) -> None:
    there = _layers(graph)
    if not there:
        looks = "its attention looks ahead: an encoder" if graph.count("segment_attention") else "it has no attention"
        what = f"sparse attention needs a decoder with a KV cache; {looks}"
        raise PassError(what, where=graph.name, when="pass sparse_attention")
    if not graph.count("block_attention") and all(_window(n) for n in graph.nodes if n.op == "cached_attention"):
        what = "every layer has a sliding window, which is a budget already: nothing is left for sparse attention"
        raise PassError(what, where=graph.name, when="pass sparse_attention")
    named = {"layers": options.layers, "dense_layers": options.dense_layers, "the plan": options.planned()}
    for name, layers in named.items():
        missing = [n for n in layers if n not in there]
        if missing:
            what = f"{name} names layer {missing[0]}; the attention layers are {there[0]} to {there[-1]}"
            raise PassError(what, when="pass sparse_attention")
