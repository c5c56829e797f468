"""Random graphs of what passes look for: norms, rotary embeddings, fans of linears, chains of reshapes and transposes.

Every piece has several spellings, and now and then a near miss that a rule has to leave alone. The graphs can be run:
indices stay in range, and no value overflows.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from fretsaw.ir import Attr, Const, DType, Graph, GraphBuilder, Loc, Shape, TensorType, Value, sym
from fretsaw.ir.types import numpy_dtype

WIDTH, HEADS, SIZE = 8, 2, 4  # features, heads, features of a head


class Pieces:
    """A graph being made of pieces; ``x`` is the stream [B, S, 8] that pieces read and write."""

    def __init__(self, rng: random.Random, dtype: DType) -> None:
        self.rng, self.dtype = rng, dtype
        self.data = np.random.default_rng(rng.getrandbits(32))
        self.build = GraphBuilder("pieces", {"B": (1, 4), "S": (1, 64)})
        self.lead: Shape = (sym("B"), sym("S"))
        self.stream = [self.build.input("x", TensorType(dtype, (*self.lead, WIDTH)))]
        self.positions = self.build.input("positions", TensorType("i64", self.lead))
        self.observed: list[Value] = []
        self.count = 0

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def x(self) -> Value:
        return self.rng.choice(self.stream[-3:])

    def op(self, name: str, *operands: Value, **attrs: Attr) -> Value:
        """A node; commutative ones in either order; now and then a graph output."""
        if name in ("add", "mul") and self.chance(0.4):
            operands = operands[::-1]
        value = self.build.emit_node(name, operands, attrs, loc=Loc(f"m.{self.count}")).out
        if self.chance(0.02):
            self.observed.append(value)
        return value

    def const(self, array: np.ndarray | np.floating | float) -> Value:
        return self.build.const("c", Const.of(np.asarray(array, numpy_dtype(self.dtype)), self.dtype))

    def weight(self, *shape: int) -> Value:
        """Single precision numbers in either dtype, so that both graphs mean the same."""
        return self.const((self.data.standard_normal(shape) * shape[-1] ** -0.5).astype(np.float32))

    def mean(self, x: Value) -> Value:
        axis = x.tensor.rank - 1 if self.chance(0.95) else 1
        return self.op("mean", x, axis=axis, keepdims=True)

    def finish(self) -> Graph:
        outputs = dict.fromkeys([self.x(), *self.observed])
        return self.build.finish(list(outputs))


def rms_norm(p: Pieces) -> Value:
    x = p.x()
    square = p.op("mul", x, x) if p.chance(0.5) else p.op("pow", x, p.const(2.0))
    shifted = p.op("add", p.mean(square), p.const(p.rng.choice((1e-5, 1e-6, 0.5))))
    spelling = p.rng.randint(0, 2)
    if spelling == 0:
        y = p.op("mul", x, p.op("rsqrt", shifted))
    elif spelling == 1:
        y = p.op("div", x, p.op("sqrt", shifted))
    else:
        y = p.op("mul", x, p.op("reciprocal", p.op("sqrt", shifted)))
    return p.op("mul", y, p.weight(WIDTH)) if p.chance(0.6) else y


def layer_norm(p: Pieces) -> Value:
    x = p.x()
    centred = p.op("sub", x, p.mean(x))
    variance = p.mean(p.op("mul", centred, centred))
    y = p.op("mul", centred, p.op("rsqrt", p.op("add", variance, p.const(1e-2))))
    y = p.op("mul", y, p.weight(WIDTH)) if p.chance(0.5) else y
    return p.op("add", y, p.weight(WIDTH)) if p.chance(0.5) else y


def norm(p: Pieces) -> Value:
    gain = [p.weight(WIDTH)] if p.chance(0.6) else []
    return p.op(p.rng.choice(("rms_norm", "layer_norm")), p.x(), *gain, eps=1e-2)


def gelu(p: Pieces) -> Value:
    x = p.x()
    cube = p.op("pow", x, p.const(3.0)) if p.chance(0.5) else p.op("mul", x, p.op("mul", x, x))
    inner = p.op("add", x, p.op("mul", cube, p.const(np.float32(0.044715))))
    inner = p.op("mul", inner, p.const(np.float32(np.sqrt(2 / np.pi))))
    one = p.op("add", p.op("tanh", inner), p.const(1.0))
    return p.op("mul", p.op("mul", x, p.const(0.5)), one)


def linear(p: Pieces, x: Value, out: int) -> Value:
    bias = [p.weight(out)] if p.chance(0.3) else []
    y = p.op("linear", x, p.weight(out, x.tensor.shape[-1]), *bias)  # type: ignore[arg-type]
    return p.op("add", y, p.weight(out)) if p.chance(0.2) else y


def gated(p: Pieces) -> Value:
    x = norm(p) if p.chance(0.5) else p.x()
    gate, up = linear(p, x, 6), linear(p, x if p.chance(0.9) else p.x(), 6)
    if p.chance(0.3):  # SiLU written out
        act = p.op("mul", gate, p.op("sigmoid", gate))
    else:
        act = p.op(p.rng.choice(("silu", "gelu", "relu")), gate)
    return linear(p, p.op("mul", act, up), WIDTH)


def turn(p: Pieces, x: Value) -> Value:
    """Rotary embedding of [B, S, H, E] written out, or as one op."""
    inv = (10.0 ** -np.arange(SIZE // 2)).astype(np.float32)
    if p.chance(0.4):
        return p.op("rope", x, p.positions, p.const(inv), layout=p.rng.choice(("half", "interleaved")))
    angle = p.op("mul", p.op("reshape", p.op("cast", p.positions, dtype=p.dtype), shape=(*p.lead, 1)), p.const(inv))
    angle = p.op("concat", angle, angle, axis=2)
    cos, sin = (p.op("reshape", p.op(f, angle), shape=(*p.lead, 1, SIZE)) for f in ("cos", "sin"))
    half = SIZE // 2
    low = p.op("slice", x, axis=3, start=0, end=half)
    high = p.op("slice", x, axis=3, start=half, end=SIZE)
    swapped = p.op("concat", p.op("neg", high), low, axis=3)
    return p.op("add", p.op("mul", x, cos), p.op("mul", swapped, sin))


def attention(p: Pieces) -> Value:
    x = norm(p) if p.chance(0.5) else p.x()
    kv = p.rng.choice((1, HEADS))
    heads = [p.op("reshape", linear(p, x, n * SIZE), shape=(*p.lead, n, SIZE)) for n in (HEADS, kv, kv)]
    q, k, v = heads
    if p.chance(0.7):
        q, k = turn(p, q), turn(p, k)
    if p.chance(0.3):
        q = p.op("transpose", p.op("transpose", q, perm=(0, 2, 1, 3)), perm=(0, 2, 1, 3))
    y = p.op("attention", q, k, v, scale=0.5, causal=p.chance(0.7))
    return linear(p, p.op("reshape", y, shape=(*p.lead, HEADS * SIZE)), WIDTH)


def moves(p: Pieces) -> Value:
    """Reshapes, transposes and elementwise ops that end in the stream's shape again."""
    x = p.op("reshape", p.x(), shape=(*p.lead, HEADS, SIZE))
    for _ in range(p.rng.randint(0, 3)):
        perm = p.rng.choice(((0, 2, 1, 3), (0, 1, 3, 2), (0, 1, 2, 3)))
        x = p.op("transpose", x, perm=perm)
        if p.chance(0.5):
            x = p.op(p.rng.choice(("neg", "tanh", "abs")), x)
        if p.chance(0.3):
            x = p.op("add", x, p.const(p.data.standard_normal(())))
        inverse = tuple(perm.index(i) for i in range(4))
        x = p.op("transpose", x, perm=inverse)
    return p.op("reshape", x, shape=(*p.lead, WIDTH))


def noops(p: Pieces) -> Value:
    x = p.x()
    match p.rng.randint(0, 6):
        case 0:
            return p.op("cast", x, dtype=p.dtype)
        case 1:
            return p.op("add", x, p.const(0.0))
        case 2:
            return p.op("mul", x, p.const(1.0))
        case 3:
            return p.op("slice", x, axis=2, start=0, end=WIDTH)
        case 4:
            return p.op("neg", p.op("neg", x))
        case 5:
            return p.op("cast", p.op("cast", x, dtype="f64"), dtype=p.dtype)
        case _:
            return p.op("expand", p.op("transpose", x, perm=(0, 1, 2)), shape=x.tensor.shape)


def constants(p: Pieces) -> Value:
    table = p.op(p.rng.choice(("tanh", "neg", "abs")), p.weight(WIDTH))
    return p.op("mul", p.x(), p.op("add", table, p.weight(WIDTH) if p.chance(0.5) else p.const(2.0)))


def twice(p: Pieces) -> Value:
    x, op = p.x(), p.rng.choice(("tanh", "sigmoid"))
    return p.op("add", p.op(op, x), p.op(op, x))


def dead(p: Pieces) -> Value:
    p.op("neg", p.x())
    return p.x()


def mixed(p: Pieces) -> Value:
    """Splits, joins, reductions, softmax."""
    x = p.x()
    match p.rng.randint(0, 3):
        case 0:
            at = p.rng.randint(1, WIDTH - 1)
            parts = (p.op("slice", x, axis=2, start=a, end=b) for a, b in ((at, WIDTH), (0, at)))
            return p.op("concat", *parts, axis=2)
        case 1:
            return p.op("mul", x, p.op(p.rng.choice(("sum", "max")), x, axis=2, keepdims=True))
        case 2:
            return p.op("softmax", x, axis=p.rng.choice((1, 2)))
        case _:
            return p.op("matmul", x, p.weight(WIDTH, WIDTH))


def routed(p: Pieces) -> Value:
    """Softmax and top-k of a router; weights of the best are spread over the stream."""
    tokens = p.lead[0] * p.lead[1]
    logits = p.op("linear", p.op("reshape", p.x(), shape=(tokens, WIDTH)), p.weight(4, WIDTH))
    best = p.op("topk", p.op("softmax", logits, axis=1), k=2)
    if p.chance(0.5):
        best = p.op("div", best, p.op("sum", best, axis=1, keepdims=True))
    first = p.op("slice", best, axis=1, start=0, end=1)
    return p.op("mul", p.x(), p.op("reshape", first, shape=(*p.lead, 1)))


PIECES: tuple[Callable[[Pieces], Value], ...] = (
    rms_norm, layer_norm, norm, gelu, gated, attention, moves, moves, noops, constants, twice, dead, mixed, routed,
)  # fmt: skip


def random_pieces(rng: random.Random, dtype: DType = "f32", most: int = 5) -> Graph:
    """A graph of one to ``most`` pieces on inputs ``x`` [B, S, 8] and ``positions`` i64[B, S]; the same structure and
    the same weights for each dtype."""
    p = Pieces(rng, dtype)
    for _ in range(rng.randint(1, most)):
        p.count += 1
        y = rng.choice(PIECES)(p)
        if p.chance(0.4) and y is not p.stream[-1]:
            y = p.op("add", y, p.x())
        p.stream.append(y)
    return p.finish()
