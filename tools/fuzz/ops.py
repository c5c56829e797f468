"""For every op of the catalogue, operands and attributes that its shape rule accepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fretsaw.ir import Attr, DimLike, OpDef, Shape, TensorType, Value, catalogue
from fretsaw.ir.op import ShapeError
from fretsaw.ir.types import DTYPES, FLOATS, DType
from fretsaw.tools.fuzz.maker import Maker
from fretsaw.tools.fuzz.sparse import SPARSE

Choice = tuple[Sequence[Value], dict[str, Attr]]
Emitter = Callable[[Maker], Choice]


def _broadcastable(g: Maker, shape: Shape) -> Shape:
    """A shape that broadcasts to ``shape``."""
    kept = shape[g.rng.randint(0, len(shape)) if g.chance(0.3) else 0 :]
    return tuple(1 if g.chance(0.2) else d for d in kept)


def _fixed(dim: DimLike, otherwise: int) -> int:
    return dim if isinstance(dim, int) and dim > 0 else otherwise


def _binary(g: Maker, dtypes: Sequence[DType] | frozenset[DType] = DTYPES) -> Choice:
    a = g.pick(dtypes)
    b = g.tensor(a.tensor.dtype, _broadcastable(g, a.tensor.shape))
    return ([a, b] if g.chance(0.5) else [b, a]), {}


def _where(g: Maker) -> Choice:
    (a, b), _ = _binary(g)
    return [g.tensor("bool", _broadcastable(g, a.tensor.shape)), a, b], {}


def _clamp(g: Maker) -> Choice:
    bounds: list[Attr] = [None, g.number(), g.rng.randint(-3, 3)]
    return [g.pick()], {"min": g.rng.choice(bounds), "max": g.rng.choice(bounds)}


def _axis(g: Maker) -> Choice:
    x = g.pick(low=1)
    return [x], {"axis": g.rng.randrange(x.tensor.rank)}


def _reduce(g: Maker) -> Choice:
    operands, attrs = _axis(g)
    return operands, {**attrs, "keepdims": g.chance(0.5)}


def _reshape(g: Maker) -> Choice:
    x = g.pick()
    kept = list(x.tensor.shape)
    if kept and g.chance(0.5):
        i = g.rng.randrange(len(kept))
        kept[max(0, i - 1) : i + 1] = [kept[i] * (kept[i - 1] if i else 1)]
    kept.insert(g.rng.randint(0, len(kept)), 1)
    g.rng.shuffle(kept)
    return [x], {"shape": tuple(kept)}


def _transpose(g: Maker) -> Choice:
    x = g.pick()
    return [x], {"perm": tuple(g.rng.sample(range(x.tensor.rank), x.tensor.rank))}


def _expand(g: Maker) -> Choice:
    shape = g.shape()
    return [g.tensor(g.dtype(), _broadcastable(g, shape))], {"shape": shape}


def _slice(g: Maker) -> Choice:
    x = g.pick(low=1)
    axis = g.rng.randrange(x.tensor.rank)
    dim = x.tensor.shape[axis]
    if not isinstance(dim, int):
        return [x], {"axis": axis, "start": 0, "end": g.rng.choice([dim, 0])}
    start = g.rng.randint(0, dim)
    return [x], {"axis": axis, "start": start, "end": g.rng.randint(start, dim), "step": g.rng.choice((1, 1, 2, 3))}


def _concat(g: Maker) -> Choice:
    x = g.pick(low=1)
    axis = g.rng.randrange(x.tensor.rank)
    shape = x.tensor.shape
    others = [
        g.tensor(x.tensor.dtype, (*shape[:axis], g.dim(), *shape[axis + 1 :])) for _ in range(g.rng.randint(0, 3))
    ]
    return [x, *others], {"axis": axis}


def _gather(g: Maker) -> Choice:
    x = g.pick(low=1)
    axis = g.rng.randrange(x.tensor.rank)
    shape = tuple(g.dim() if i == axis else d for i, d in enumerate(x.tensor.shape))
    return [x, g.ints(shape)], {"axis": axis}


def _scatter(g: Maker) -> Choice:
    x = g.pick(low=1)
    shape = x.tensor.shape
    return [x, g.ints(shape), g.tensor(x.tensor.dtype, shape)], {"axis": g.rng.randrange(len(shape))}


def _take(g: Maker) -> Choice:
    return [g.pick(low=1, high=3), g.ints(g.shape(0, 2))], {}


def _embedding(g: Maker) -> Choice:
    return [g.ints(g.shape(0, 2)), g.float(2, 2)], {}


def _iota(g: Maker) -> Choice:
    return [], {"size": g.dim(), "dtype": g.dtype([d for d in DTYPES if d != "bool"])}


def _full(g: Maker) -> Choice:
    value = g.rng.choice((g.number(), g.rng.randint(-9, 9), True))
    return [], {"shape": g.shape(), "dtype": g.dtype(), "value": value}


def _linear(g: Maker) -> Choice:
    x = g.float(1)
    kind, out = x.tensor.dtype, g.dim()
    operands = [x, g.tensor(kind, (out, x.tensor.shape[-1]))]
    return ([*operands, g.tensor(kind, (out,))] if g.chance(0.4) else operands), {}


def _matmul(g: Maker) -> Choice:
    a = g.float(2)
    *batch, _, inner = a.tensor.shape
    return [a, g.tensor(a.tensor.dtype, (*_broadcastable(g, tuple(batch)), inner, g.dim()))], {}


def _norm(g: Maker, optional: int) -> Choice:
    x = g.float(1)
    extra = [g.tensor(x.tensor.dtype, (x.tensor.shape[-1],)) for _ in range(g.rng.randint(0, optional))]
    return [x, *extra], {"eps": g.rng.choice((1e-5, 1e-6, 0.0, 1))}


def _topk(g: Maker) -> Choice:
    x = g.pick(low=1)
    last = x.tensor.shape[-1]
    if last == 0:
        x = g.leaf(TensorType("f32", (3,)))
        last = 3
    return [x], {"k": g.rng.randint(1, _fixed(last, 4))}


def _rope(g: Maker) -> Choice:
    head = 2 * g.rng.randint(1, 4)
    kind, lead = g.dtype(sorted(FLOATS)), g.shape(0, 2)
    x = g.tensor(kind, (*lead, g.dim(), head))
    freq = g.tensor(g.dtype(sorted(FLOATS)), (g.rng.randint(1, head // 2),))
    attrs: dict[str, Attr] = {"layout": g.rng.choice(("half", "interleaved")), "scale": g.rng.choice((1.0, 1.5))}
    return [x, g.ints(lead), freq], attrs


def _attention_attrs(g: Maker) -> dict[str, Attr]:
    return {
        "causal": g.chance(0.5), "window": g.rng.choice((0, 3)), "scale": g.number(),
        "softcap": g.rng.choice((0.0, 9.0)),
    }  # fmt: skip


def _attention(g: Maker) -> Choice:
    kind, batch, e, kv = g.dtype(sorted(FLOATS)), g.dim(), g.dim(), g.rng.randint(1, 2)
    heads, keys = kv * g.rng.randint(1, 3), g.dim()
    q = g.tensor(kind, (batch, g.dim(), heads, e))
    operands = [q, g.tensor(kind, (batch, keys, kv, e)), g.tensor(kind, (batch, keys, kv, g.dim()))]
    return ([*operands, g.tensor(kind, (heads,))] if g.chance(0.3) else operands), _attention_attrs(g)


def _kv_append(g: Maker) -> Choice:
    kind, lead = g.dtype(sorted(FLOATS)), (g.dim(), g.rng.randint(1, 2))
    return [g.handle(), g.tensor(kind, (*lead, g.dim())), g.tensor(kind, (*lead, g.dim()))], {
        "layer": g.rng.randint(0, 3)
    }


def _cached_attention(g: Maker) -> Choice:
    q = g.tensor(g.dtype(sorted(FLOATS)), (g.dim(), g.rng.randint(1, 4), g.dim()))
    attrs = {**_attention_attrs(g), "layer": g.rng.randint(0, 3), "value_size": g.rng.randint(1, 8)}
    sinks = [g.tensor(q.tensor.dtype, (q.tensor.shape[1],))] if g.chance(0.3) else []
    return [g.handle(), q, *sinks], attrs


def _keep_window(g: Maker) -> Choice:
    sizes = {"sinks": g.rng.randint(0, 9), "window": g.rng.randint(1, 9), "page": g.rng.choice((1, 4, 64))}
    return [g.handle()], {"layer": g.rng.randint(0, 3), **sizes}


def _segment_attention(g: Maker) -> Choice:
    kind, t, e, kv = g.dtype(sorted(FLOATS)), g.dim(), g.dim(), g.rng.randint(1, 2)
    heads = kv * g.rng.randint(1, 3)
    operands = [g.tensor(kind, (t, heads, e)), g.tensor(kind, (t, kv, e)), g.tensor(kind, (t, kv, g.dim()))]
    operands.append(g.ints((g.dim() + 1,)))
    return ([*operands, g.tensor(kind, (heads,))] if g.chance(0.3) else operands), _attention_attrs(g)


def _pool(g: Maker, *, packed: bool) -> Choice:
    lead = (g.dim(),) if packed else (g.dim(), g.dim())
    x = g.tensor(g.dtype(sorted(FLOATS)), (*lead, g.dim()))
    kind = g.rng.choice(("first", "last", "mean", "max", "mean_sqrt"))
    return [x, *([g.ints((g.dim() + 1,))] if packed else [])], {"kind": kind}


def _router(g: Maker) -> Choice:
    experts = g.rng.randint(1, 6)
    logits = g.tensor(g.dtype(sorted(FLOATS)), (g.dim(), experts))
    softmax = g.rng.choice(("before", "after"))
    return [logits], {"k": g.rng.randint(1, experts), "normalize": g.chance(0.5), "softmax": softmax}


def _experts(g: Maker) -> Choice:
    kind, t, d, f = g.dtype(sorted(FLOATS)), g.dim(), g.dim(), g.rng.randint(1, 3)
    e, k = g.rng.randint(1, 3), g.rng.randint(1, 2)
    operands = [g.tensor(kind, (t, d)), g.ints((t, k)), g.tensor(kind, (t, k)), g.tensor(kind, (e, 2 * f, d))]
    operands.append(g.tensor(kind, (e, d, f)))
    if g.chance(0.3):
        operands += [g.tensor(kind, (e, 2 * f)), g.tensor(kind, (e, d))]
    act = g.rng.choice(("silu", "gelu", "gelu_tanh", "relu", "clamped_swiglu"))
    attrs: dict[str, Attr] = {"act": act, "layout": g.rng.choice(("concat", "interleaved"))}
    return operands, attrs | ({"limit": g.rng.choice((7, 0.5)), "alpha": 1.5} if act == "clamped_swiglu" else {})


def _dequantize(g: Maker) -> Choice:
    group, groups = g.rng.randint(1, 4), g.rng.randint(0, 3)
    lead = tuple(g.rng.randint(0, 3) for _ in range(g.rng.randint(0, 2)))
    terms = (*lead, groups)
    operands = [g.tensor("u8", (*lead, groups * group)), g.tensor("f16", terms), g.tensor("f16", terms)]
    return operands, {"bits": g.rng.randint(1, 8), "group": group}


def _plain(op: OpDef) -> Emitter | None:
    """Operands of an op without attributes that maps one tensor, or two broadcast ones, elementwise."""
    if not op.elementwise or op.attrs or len(op.slots) > 2 or any(s.endswith(("?", "*")) for s in op.slots):
        return None
    dtypes = [d for d in DTYPES if _takes(op, d)]
    if len(op.slots) == 2:
        return lambda g: _binary(g, dtypes)
    return lambda g: ([g.pick(dtypes)], {})


def _takes(op: OpDef, dtype: DType) -> bool:
    try:
        op.shape_rule([TensorType(dtype, (1,))] * len(op.slots), {})
    except ShapeError:
        return False
    return True


def emitters() -> Mapping[str, Emitter]:
    """How to use every op: those below, and what the declarations of plain elementwise ops say."""
    derived = {name: made for name, op in catalogue().items() if (made := _plain(op)) is not None}
    return derived | EMITTERS


EMITTERS: dict[str, Emitter] = {
    "where": _where, "clamp": _clamp,
    "gelu": lambda g: ([g.float()], {"approximate": g.rng.choice(("none", "tanh"))}),
    "cast": lambda g: ([g.pick()], {"dtype": g.dtype()}),
    **dict.fromkeys(("softmax", "cumsum"), _axis), **dict.fromkeys(("sum", "mean", "max"), _reduce),
    "reshape": _reshape, "transpose": _transpose, "expand": _expand, "slice": _slice, "concat": _concat,
    "gather": _gather, "scatter": _scatter, "take": _take, "embedding": _embedding, "iota": _iota, "full": _full,
    "linear": _linear, "matmul": _matmul, "rms_norm": lambda g: _norm(g, 1), "layer_norm": lambda g: _norm(g, 2),
    "topk": _topk, "rope": _rope, "attention": _attention, "kv_append": _kv_append,
    "segment_attention": _segment_attention, "pool": lambda g: _pool(g, packed=False),
    "segment_pool": lambda g: _pool(g, packed=True), "l2_norm": lambda g: ([g.pick(sorted(FLOATS), low=1)], {}),
    "cached_attention": _cached_attention, "keep_window": _keep_window, "router": _router, "experts": _experts,
    "dequantize": _dequantize,
    **SPARSE,
}  # fmt: skip
