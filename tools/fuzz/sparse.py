"""Operands and attributes for the ops of sparse attention: arrays over the blocks of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fretsaw.ir import Attr, Shape, Value, sym
from fretsaw.ir.types import FLOATS, DType
from fretsaw.tools.fuzz.maker import Maker

Choice = tuple[Sequence[Value], dict[str, Attr]]
Emitter = Callable[[Maker], Choice]
QB, KB, B = sym("QB"), sym("KB"), sym("B")
E = 4  # of pooled queries and keys


def _sized(g: Maker) -> Maker:
    """The graph, with the symbols of blocks."""
    for name in ("QB", "KB", "B"):
        g.dims.setdefault(name, (0, 64))
    return g


def _array(g: Maker, dtype: DType, shape: Shape) -> Value:
    return _sized(g).tensor(dtype, shape)


def _cache(g: Maker) -> Value:
    return _sized(g).handle()


def _mask(g: Maker, groups: int) -> Value:
    return _array(g, "bool", (QB, groups, KB))


def _scores(g: Maker, heads: int) -> Value:
    return _array(g, "f32", (QB, heads, KB))


def _queries(g: Maker, heads: int) -> Value:
    return _array(g, g.dtype(sorted(FLOATS)), (g.dim(), heads, E))


def _counts(g: Maker, *names: str, low: int = 0) -> dict[str, Attr]:
    return {name: g.rng.randint(low, 9) for name in names}


def _of_heads(g: Maker, *names: str, most: int = 9) -> dict[str, Attr]:
    heads = g.rng.randint(1, 4)
    return {name: tuple(g.rng.randint(0, most) for _ in range(heads)) for name in names}


def _dense(g: Maker) -> dict[str, Attr]:
    return _counts(g, "dense_until", "last_rows")


def _keys(g: Maker, kv_heads: int) -> dict[str, Attr]:
    return {"layer": g.rng.randint(0, 3), "kv_heads": kv_heads, "decode": g.chance(0.2)}


def _block_attention(g: Maker) -> Choice:
    groups = g.rng.randint(1, 2)
    q = _queries(g, groups * g.rng.randint(1, 2))
    operands = [_cache(g), q, _array(g, "i32", (QB, groups, KB)), _array(g, "i32", (QB, groups))]
    heads = q.tensor.shape[1]
    assert isinstance(heads, int)
    if g.chance(0.3):
        operands.append(g.tensor(q.tensor.dtype, (heads,)))
    attrs: dict[str, Attr] = {**_counts(g, "layer"), "value_size": g.rng.randint(1, 8), "scale": g.number()}
    if g.chance(0.5):
        attrs |= {name: tuple(g.rng.randint(0, 9) for _ in range(heads)) for name in ("sink", "window")}
    return operands, attrs | {"lse": g.chance(0.3), "decode": g.chance(0.2)}


def _gather_attention(g: Maker) -> Choice:
    groups, width = g.rng.randint(1, 2), g.dim()
    q = _queries(g, groups * g.rng.randint(1, 2))
    attrs: dict[str, Attr] = {**_counts(g, "layer"), "value_size": g.rng.randint(1, 8), "scale": g.number()}
    lists = [_array(g, "i32", (QB, groups, width)), _array(g, "i32", (QB, groups))]
    turn: list[Value] = []
    if g.chance(0.3):
        turn = [g.tensor("f32", (E // 2,))]
        attrs |= {"distance": g.rng.randint(1, 99), "layout": g.rng.choice(("half", "interleaved"))}
    return [_cache(g), q, *lists, *turn], attrs | {"decode": g.chance(0.2)}


def _merge_attention(g: Maker) -> Choice:
    shape, kind = (g.dim(), g.dim(), g.dim()), g.dtype(sorted(FLOATS))
    sides = [(g.tensor(kind, shape), g.tensor("f32", shape[:2])) for _ in range(2)]
    return [value for side in sides for value in side], {"lse": g.chance(0.5)}


def _pool_queries(g: Maker) -> Choice:
    return [_cache(g), _queries(g, g.rng.randint(1, 3))], {"kind": g.rng.choice(("mean", "max", "min"))}


def _pool_keys(g: Maker) -> Choice:
    attrs: dict[str, Attr] = {"size": E, "kind": g.rng.choice(("mean", "max", "min"))}
    return [_cache(g)], {**_keys(g, g.rng.randint(1, 2)), **attrs}


def _pooled(g: Maker, pools: int) -> tuple[int, list[Value]]:
    kv = g.rng.randint(1, 2)
    return kv * g.rng.randint(1, 2), [_array(g, "f32", (B, kv, KB, E)) for _ in range(pools)]


def _block_scores(g: Maker, *, band: bool) -> Choice:
    heads, pools = _pooled(g, 1)
    attrs: dict[str, Attr] = {"scale": g.number()}
    if band:
        attrs |= {"start": 0, "end": g.rng.randint(1, E // 2)}
    return [_cache(g), _array(g, "f32", (QB, heads, E)), *pools], attrs


def _bound_scores(g: Maker) -> Choice:
    heads, pools = _pooled(g, 2)
    return [_cache(g), _queries(g, heads), *pools], {"scale": g.number(), "decode": g.chance(0.2)}


def _on_keys(g: Maker, **attrs: Attr) -> Choice:
    kv = g.rng.randint(1, 2)
    return [_cache(g), _queries(g, kv * g.rng.randint(1, 2))], {**_keys(g, kv), "scale": g.number(), **attrs}


def _pool_heads(g: Maker) -> Choice:
    groups = g.rng.randint(1, 2)
    scores = _scores(g, groups * g.rng.randint(1, 2))
    return [scores], {"groups": groups, "kind": g.rng.choice(("sum", "mean", "max"))}


def _rule(g: Maker, **attrs: Attr) -> Choice:
    groups = g.rng.randint(1, 3)
    return [_cache(g), _scores(g, groups), _mask(g, groups)], attrs


def _lines(g: Maker, attrs: dict[str, Attr], *, forced: bool = True) -> Choice:
    heads = g.rng.randint(1, 2)
    lines = [_array(g, "f32", (B, heads, KB * 64)) for _ in range(2)]
    return [_cache(g), *lines, *([_mask(g, heads)] if forced else [])], attrs


def _line_tokens(g: Maker) -> Choice:
    counts = tuple(g.rng.choice((0, 3, 9)) for _ in range(g.rng.randint(0, 2)))
    heads = 1 + len(counts)
    operands = [_cache(g), _array(g, "f32", (B, heads, KB * 64)), _mask(g, heads)]
    return operands, {"columns": (5, *counts), "first_columns": g.rng.randint(0, 3)}


def _budget(g: Maker) -> dict[str, Attr]:
    return _counts(g, "columns", "diagonals", "first_columns", "near_diagonals")


def _pick_heads(g: Maker) -> Choice:
    heads, count = 2 * g.rng.randint(1, 2), g.rng.randint(1, 3)
    masks = [_mask(g, g.rng.choice((1, 2, heads))) for _ in range(count)]
    return masks, {"choice": tuple(g.rng.randrange(count) for _ in range(heads))}


def _flex_switch(g: Maker) -> Choice:
    heads, pools = _pooled(g, 1)
    masks = [_mask(g, heads), _mask(g, heads)]
    operands = [_cache(g), _array(g, "f32", (B, heads, KB * 64)), _array(g, "f32", (QB, heads, E)), *pools, *masks]
    return operands, {"gamma": 0.9, "tau": 0.1, "scale": g.number()}


def _halving_blocks(g: Maker) -> Choice:
    kv = g.rng.randint(1, 2)
    heads = kv * g.rng.randint(1, 2)
    return [_cache(g), _queries(g, heads), _mask(g, heads)], {**_keys(g, kv), "blocks": g.rng.randint(1, 9)}


def _gate_queries(g: Maker) -> Choice:
    heads, weight = g.rng.randint(1, 3), g.chance(0.5)
    operands = [_cache(g), _queries(g, heads), g.tensor("f32", (E // 2,))]
    return [*operands, *([g.tensor("f32", (heads, E, E))] if weight else [])], {"rope_scale": 1.5}


def _gate_keys(g: Maker) -> Choice:
    heads = g.rng.randint(1, 2)
    weight = g.tensor("f32", (heads * g.rng.randint(1, 2), 3 * E, E))
    return [_cache(g), weight, g.tensor("f32", (E // 2,))], _keys(g, heads)


def _chunk_keys(g: Maker) -> Choice:
    heads, tokens, dtype = g.rng.randint(1, 2), g.dim(), g.dtype(sorted(FLOATS))
    k, v = (_array(g, dtype, (tokens, heads, E)) for _ in range(2))
    q = _array(g, dtype, (tokens, heads * g.rng.randint(1, 2), E))
    return [_cache(g), q, k, v, g.tensor("f32", (E // 2,))], {"scale": g.number()}


def _hash_scores(g: Maker) -> Choice:
    heads, pools = _pooled(g, 1)
    return [_cache(g), _array(g, "f32", (QB, heads, E)), *pools, g.tensor("f32", (E, g.rng.randint(1, 7)))], {}


SPARSE: dict[str, Emitter] = {
    "block_attention": _block_attention,
    "gather_attention": _gather_attention, "merge_attention": _merge_attention,
    "causal_blocks": lambda g: ([_cache(g)], _counts(g, "groups", low=1)),
    "forced_blocks": lambda g: ([_cache(g)], _counts(g, "groups", low=1) | _counts(g, "sink", "local") | _dense(g)),
    "span_blocks": lambda g: ([_cache(g)], _of_heads(g, "sink", "window") | _dense(g)),
    "strided_blocks": lambda g: ([_cache(g)], _counts(g, "stride", "local", low=1) | _of_heads(g, "offsets")),
    "union_blocks": lambda g: ([_mask(g, 2), _mask(g, 2)], {}),
    "pick_heads": _pick_heads,
    "compact_blocks": lambda g: ([_mask(g, g.rng.randint(1, 3))], {}),
    "pool_queries": _pool_queries, "pool_keys": _pool_keys, "bound_scores": _bound_scores,
    "block_scores": lambda g: _block_scores(g, band=False), "band_scores": lambda g: _block_scores(g, band=True),
    "antidiagonal_scores": lambda g: _on_keys(g, stride=g.rng.choice((1, 4, 16)), norm=1.5),
    "line_scores": lambda g: _on_keys(g, rows=g.rng.randint(1, 64)),
    "compressed_scores": lambda g: _on_keys(g, kernel=32, stride=g.rng.choice((8, 16, 32))),
    "softmax_blocks": lambda g: ([_scores(g, 2)], {}), "pool_heads": _pool_heads,
    "line_blocks": lambda g: _lines(g, _budget(g)), "line_tokens": _line_tokens,
    "line_block_scores": lambda g: _lines(g, _budget(g), forced=False),
    "flex_blocks": lambda g: _lines(g, {"gamma": 0.9, "min_blocks": 2, "max_blocks": g.rng.choice((0, 3))}),
    "elastic_blocks": lambda g: ([_cache(g)], _counts(g, "groups", low=1) | _counts(g, "alpha", "beta") | _dense(g)),
    "prompt_blocks": lambda g: ([_cache(g)], _counts(g, "groups", low=1)),
    "gate_queries": _gate_queries, "gate_keys": _gate_keys, "chunk_keys": _chunk_keys, "hash_scores": _hash_scores,
    "block_tokens": lambda g: ([_cache(g), _mask(g, 2), _mask(g, 2)], {}),
    "earlier_blocks": lambda g: ([_cache(g)], _counts(g, "groups", low=1)),
    "sampled_blocks": lambda g: ([_cache(g)], _counts(g, "groups", low=1) | _counts(g, "count", "seed")),
    "representative_keys": lambda g: _on_keys(g, window=g.rng.randint(1, 64), count=g.rng.randint(1, 4)),
    "flex_switch": _flex_switch, "halving_blocks": _halving_blocks,
    "select_top_k": lambda g: _rule(g, k=g.rng.randint(1, 9)),
    "select_top_p": lambda g: _rule(g, p=g.rng.choice((0.5, 1.0))),
    "select_share": lambda g: _rule(g, density=g.rng.choice((0.1, 1.0))),
    "select_above": lambda g: _rule(g, threshold=g.rng.choice((-1.0, 0.01))),
}  # fmt: skip
