"""Packed graphs of bare attention layers, steps that fill their cache, and random queries, keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fretsaw.ir import Graph, Node, ReferenceKvCache, Value, evaluate_graph, parse, verify
from fretsaw.passes.api import Pass
from fretsaw.passes.kit.contract import hold
from fretsaw.passes.pipeline import ON_REQUEST

Array = np.ndarray
SIZE = 8  # features of a head
SCALE = 0.35
PASS: Pass = next(p for p in ON_REQUEST if p.name == "sparse_attention")


def layer_text(layers: int = 1, heads: int = 4, kv_heads: int = 2, attrs: str = "", rope: str = "half") -> str:
    """``layers`` attention layers over one q, k, v; rope: its layout, or none."""
    body = [f"  const %freq: f32[{SIZE // 2}]"] if rope else []
    for name, count in (("q", heads), ("k", kv_heads)):
        turn = f'rope(%{name}, %positions, %freq) {{layout = "{rope}"}}' if rope else f"neg(%{name})"
        body.append(f"  %{name}.turned: f32[T, {count}, {SIZE}] = {turn}")
    for i in range(layers):
        body += [
            f"  kv_append(%kv, %k.turned, %v) {{layer = {i}}}  // layers.{i}.self_attn",
            f"  %o{i}: f32[T, {heads}, {SIZE}] = cached_attention(%kv, %q.turned) {{layer = {i}, scale = {SCALE}, "
            f"value_size = {SIZE}{attrs}}}  // layers.{i}.self_attn",
        ]
    outs = ", ".join(f"%o{i}" for i in range(layers))
    shapes = ", ".join(f"%{n}: f32[T, {c}, {SIZE}]" for n, c in (("q", heads), ("k", kv_heads), ("v", kv_heads)))
    head = f"graph @g({shapes}, %positions: i32[T], %kv: handle<kv_cache>) -> ({outs}) {{\n  phase packed\n"
    return head + "  dim T in [1, 65536]\n" + "\n".join(body) + "\n}"


def layer_graph(*args: object, **kwargs: object) -> Graph:
    """The verified graph of :func:`layer_text`."""
    graph = parse(layer_text(*args, **kwargs), seed=0)  # type: ignore[arg-type]
    verify(graph)
    return graph


def sparse(graph: Graph, **options: object) -> Graph:
    """The graph after the pass, held to its contract and verified."""
    p = PASS.configured(options)
    outcome = p.run(graph)
    hold(p.name, p.sites, graph, outcome, requested=True)
    verify(outcome.graph)
    return outcome.graph


def find(graph: Graph, op: str) -> list[Node]:
    return [n for n in graph.nodes if n.op == op]


def mask_of(graph: Graph, layer: int = 0) -> Value:
    """The mask that the lists of a layer are made of."""
    attention = next(n for n in find(graph, "block_attention") if n.attr("layer") == layer)
    compact = graph.producer(attention["idx"])
    assert compact is not None
    return compact["mask"]


@dataclass(frozen=True)
class Tokens:
    """Queries [S, H, E], keys and values [S, K, E] of one sequence, before their rotary embedding."""

    q: Array
    k: Array
    v: Array


def tokens(count: int, seed: int = 0, heads: int = 4, kv_heads: int = 2) -> Tokens:
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((count, n, SIZE)).astype(np.float32) for n in (heads, kv_heads, kv_heads))
    return Tokens(q, k, v)


@dataclass(frozen=True)
class Ran:
    """What a run gave for each sequence.

    Args:
        out: Attention [S, H, E] of every sequence.
        masks: Per sequence bool[query blocks, G, key blocks]; a block in several chunks: that of the last one.
        q, k: What attention saw, after the rotary embedding, [S, H, E] and [S, K, E].
    """

    out: list[Array]
    masks: list[Array]
    q: list[Array]
    k: list[Array]


def run_steps(graph: Graph, sequences: Sequence[Tokens], steps: Sequence[Sequence[int]], layer: int = 0) -> Ran:
    """Run ``graph`` in steps that say how many tokens of each sequence they hold."""
    cache = ReferenceKvCache(len(find(graph, "kv_append")), len(sequences))
    done = [0] * len(sequences)
    is_sparse = any(n.attr("layer") == layer for n in find(graph, "block_attention"))
    names = {n: next(v for v in graph.values() if v.name == n) for n in (f"o{layer}", "q.turned", "k.turned")}
    want = [*names.values(), *([mask_of(graph, layer)] if is_sparse else [])]
    rows: dict[str, list[list[Array]]] = {n: [[] for _ in sequences] for n in names}
    masks: list[dict[int, Array]] = [{} for _ in sequences]
    for counts in steps:
        cache.begin_step(counts)
        parts = [(s, slice(d, d + n)) for s, d, n in zip(sequences, done, counts, strict=True)]
        feed: dict[str, object] = {"kv": cache}
        for name in ("q", "k", "v"):
            feed[name] = np.concatenate([getattr(s, name)[part] for s, part in parts])
        feed["positions"] = np.concatenate([np.arange(p.start, p.stop) for _, p in parts]).astype(np.int32)
        found = evaluate_graph(graph, feed, keep=want)
        starts = np.cumsum([0, *counts])
        for i in range(len(sequences)):
            for name, value in names.items():
                rows[name][i].append(found[value][starts[i] : starts[i + 1]])
        if is_sparse:
            for block in cache.query_blocks():
                masks[block.sequence][block.block] = found[want[-1]][block.row]
        done = [d + n for d, n in zip(done, counts, strict=True)]
    joined = {n: [np.concatenate(r) for r in parts] for n, parts in rows.items()}
    return Ran(joined[f"o{layer}"], [_stacked(m) for m in masks], joined["q.turned"], joined["k.turned"])


def _stacked(masks: dict[int, Array]) -> Array:
    """Rows of a sequence as one array, key blocks cut to the sequence's."""
    count = max(masks, default=-1) + 1
    return np.stack([masks[b][:, :count] if masks[b].shape[1] >= count else _padded(masks[b], count)
                     for b in range(count)]) if count else np.zeros((0, 0, 0), bool)  # fmt: skip


def _padded(mask: Array, count: int) -> Array:
    return np.pad(mask, ((0, 0), (0, count - mask.shape[1])))


def causal(blocks: int) -> Array:
    """bool[blocks, blocks]: the blocks that each row may see."""
    return np.tri(blocks, dtype=bool)
