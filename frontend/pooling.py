"""Append the pooling and normalization of sentence-transformers' files to a captured encoder."""

from __future__ import annotations

from dataclasses import replace

from fretsaw.frontend.sentence import Sentence
from fretsaw.ir import Graph, Loc, Node, Value, make_node

OUTPUT = "embeddings"


def append_pooling(graph: Graph, sentence: Sentence) -> Graph:
    """The graph whose output is ``embeddings`` [B, D] instead of ``hidden`` [B, S, D]."""
    (hidden,) = graph.outputs
    pooled = make_node("pool", [hidden], {"kind": sentence.pooling}, [_name(sentence.normalize)], Loc("pooling"))
    nodes: list[Node] = [*graph.nodes, pooled]
    out: Value = pooled.out
    if sentence.normalize:
        nodes.append(make_node("l2_norm", [out], {}, [OUTPUT], Loc("normalize")))
        out = nodes[-1].out
    return replace(graph, nodes=tuple(nodes), outputs=(out,))


def _name(normalized_after: bool) -> str:
    return "pooled" if normalized_after else OUTPUT
