"""Keep the weights of projections in integer codes.

    const %w: f32[O, I]           const %w: f32[O, I] = dequantize(codes u8[O, I], scales, minima f16[O, I / G])
    %y = linear(%x, %w)    ==>    %y = linear(%x, %w)

Why:    decoding reads every weight once for each token: a quarter of the bytes is a quarter of the time.
Needs:  constant weights whose input features are a multiple of the group, finite and within f16.
Keeps:  budget: the rounding of weights is measured on calibration text and limited by --max-kl and --min-top1.
Stops:  one walk; a weight in codes is not coded again.
Source: affine groups as in ggml's Q4_1; methods in passes/quantize/grid.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fretsaw.ir import Const, Graph, Node, TensorType
from fretsaw.ir.errors import PassError
from fretsaw.ir.quantized import Coded, coded
from fretsaw.passes.api import Cleared, Contract, Decline, Outcome, graph_pass
from fretsaw.passes.quantize.grid import Floats, Grid, check_weights, search, span

FORMAT = re.compile(r"u([248])_g(\d+)")
KEEP = "keep"
WORD = 32  # bits
METHODS: dict[str, Callable[[Floats, int], Grid]] = {"nearest": span, "search": search}


@dataclass(frozen=True)
class Quantized:
    """Options.

    Args:
        format: u4_g32 is 4 bits a code, with one scale and minimum (f16) for 32 neighbouring input features: 5 bits a
            weight. Codes of 2, 4 and 8 bits; groups of 8 or more whose codes fill words of 32 bits.
        method: nearest takes the grid from the least and greatest weight of a group, search fits it to the weights.
        head: The format of the output head, and of an embedding that is the same matrix; keep leaves it as it is.
        layers: Layers whose projections are coded, counted from 0; empty: all of them.
        keep: Projections that stay as they are, by a part of their module path, such as down_proj.
    """

    format: str = "u4_g32"
    method: Literal["nearest", "search"] = "search"
    head: str = "u8_g32"
    layers: tuple[int, ...] = ()
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, words in (("format", ()), ("head", (KEEP,))):
            value = getattr(self, name)
            if value not in words:
                parse_format(name, value)


def parse_format(name: str, text: str) -> tuple[int, int]:
    """Bits and group of ``u4_g32``.

    Raises:
        ValueError: it is none.
    """
    found = FORMAT.fullmatch(text)
    if found is None or int(found[1]) * int(found[2]) % WORD or not 8 <= int(found[2]) <= 1024:
        raise ValueError(
            f"{name} is uBITS_gGROUP, 2, 4 or 8 bits in groups of 8 to 1024 that fill words of {WORD} bits, not {text}"
        )
    return int(found[1]), int(found[2])


def _sites(options: Quantized) -> Contract:
    def projections_without_codes_that_the_options_want(graph: Graph) -> Sequence[Node]:
        return plain_projections(graph, options)

    return Cleared(projections_without_codes_that_the_options_want)


@graph_pass(phase="packed", keeps="budget", sites=_sites, options=Quantized)
def quantize_weights(graph: Graph, options: Quantized) -> Outcome:
    """The graph with codes in the place of weights.

    Raises:
        PassError: a weight holds what no code can be for.
    """
    consts = dict(graph.consts)
    hits: list[Node] = []
    declines: list[Decline] = []
    for node in graph.nodes:
        if node.op != "linear":
            continue
        reason = left_alone(graph, node, options)
        if reason is not None:
            declines.append(reason)
            continue
        weight, format = node["weight"], _format(graph, node, options)
        if coded(consts[weight]) is None:  # two projections may read one weight
            consts[weight] = _coded(graph, node, consts[weight], *parse_format("format", format), options.method)
        hits.append(node)
    if not hits:
        return Outcome(graph, (), tuple(declines))
    return Outcome(replace(graph, consts=consts), tuple(hits), tuple(declines))


def plain_projections(graph: Graph, options: Quantized) -> Sequence[Node]:
    """Projections that the options want in codes and that have none."""
    wanted = [n for n in graph.nodes if n.op == "linear" and not _spared(graph, n, options)]
    return [n for n in wanted if (const := graph.consts.get(n["weight"])) is None or coded(const) is None]


def left_alone(graph: Graph, node: Node, options: Quantized) -> Decline | None:
    """Why a projection stays as it is, or None."""
    spared = _spared(graph, node, options)
    if spared:
        return Decline(spared, at=node, already=True)
    weight = node["weight"]
    if weight not in graph.consts:
        return Decline("its weight is computed", at=node)
    if coded(graph.consts[weight]) is not None:
        return Decline("its weight has codes", at=node, already=True)
    if weight.tensor.dtype != "f32":
        return Decline(f"its weight is {weight.tensor.dtype}, codes stand for f32", at=node)
    _, group = parse_format("format", _format(graph, node, options))
    features = weight.tensor.shape[-1]
    if not isinstance(features, int) or features % group:
        return Decline(f"its {features} input features are no multiple of groups of {group}", at=node)
    return None


def is_head(graph: Graph, node: Node) -> bool:
    """The projection to logits: as wide as the output, and nothing that is learned comes after it."""
    outputs = [v.type for v in graph.outputs[:1]]
    wide = [t for t in outputs if isinstance(t, TensorType) and t.shape[-1:] == node.out.tensor.shape[-1:]]
    return bool(wide) and not _feeds_layers(graph, node)


def _feeds_layers(graph: Graph, node: Node) -> bool:
    """A later projection reads what this one makes."""
    seen, open_values = {node.out}, [node.out]
    while open_values:
        for use in graph.uses(open_values.pop()):
            if use.node.op in ("linear", "experts", "router"):
                return True
            fresh = [v for v in use.node.results if v not in seen]
            seen.update(fresh)
            open_values += fresh
    return False


def _format(graph: Graph, node: Node, options: Quantized) -> str:
    return options.head if is_head(graph, node) else options.format


def _spared(graph: Graph, node: Node, options: Quantized) -> str:
    """What the options say about a projection that they leave alone; empty for the others."""
    if any(use.node.op == "router" for use in graph.uses(node.out)):
        return "it chooses experts: a router stays exact"
    if is_head(graph, node):
        return "head=keep" if options.head == KEEP else ""
    for part in options.keep:
        if part in node.loc.module:
            return f"keep={part}"
    layer = re.search(r"\d+", node.loc.module)
    if options.layers and (layer is None or int(layer[0]) not in options.layers):
        return "another layer"
    return ""


def _coded(graph: Graph, node: Node, const: Const, bits: int, group: int, method: str) -> Const:
    """``const`` in codes.

    Raises:
        PassError: it holds NaN, an infinity or more than f16 can.
    """
    w = const.load().astype(np.float32, copy=False)
    try:
        check_weights(w)
    except ValueError as error:
        raise PassError(
            f"the weight {const.source or node['weight'].name} cannot be coded: {error}", where=node.loc.module,
            when="pass quantize_weights", hint="name it in keep=, or mend the checkpoint",
        ) from None  # fmt: skip
    groups = w.reshape(*w.shape[:-1], -1, group)
    grid = METHODS[method](groups, bits)
    codes = grid.codes(groups, bits).reshape(w.shape)
    parts = (Const.of(codes), Const.of(grid.scales), Const.of(grid.minima))
    return Coded(*parts, bits, group).const(const.source)


__all__ = ["Quantized", "quantize_weights"]
