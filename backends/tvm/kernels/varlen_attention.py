"""Attention of whole packed sequences, bidirectional or causal, straight from the projection: no cache, no padding.

Keys are copied once per call into blocks of slots [E, P], transposed and rotated, values into blocks [P, Ev]; a block
belongs to one sequence and one head. Query tiles then walk the blocks that they see with an online softmax
(:mod:`softmax_block`). A query's arithmetic depends on its own sequence alone, in blocks counted from its first token:
results are the same bits alone, in any batch and with any number of threads.

Tasks are numbered head by head, so that the contiguous share of a thread holds all sequences of its heads: very uneven
lengths cost every thread the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    Kernel,
    bind,
    dim,
    i64,
    kernel,
    load,
    loop,
    parallel,
    scratch,
    splat,
    store,
    when,
    workspace,
)
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.kv_pages import KvPages
from fretsaw.backends.tvm.kernels.rope import RopeSpec, Turn
from fretsaw.backends.tvm.kernels.rows import for_columns
from fretsaw.backends.tvm.kernels.softmax_block import EMPTY, LOG2E, PageBlock, State, with_sink

_HEIGHT = 6  # query rows in a register block


@dataclass(frozen=True)
class VarlenSpec:
    """One kernel.

    Args:
        heads, kv_heads: H and Hkv; H is a multiple of Hkv.
        head_dim, value_dim: E and Ev (0 means E).
        scale: factor of the scores.
        causal: a token sees none after it.
        window: causal: the last ``window`` tokens, its own included; else those at a distance below it; 0 means all.
        soft_cap: ``cap * tanh(score / cap)`` where not zero.
        sinks: one more logit per head in the denominator.
        rotary: R, the leading part of a head that is rotated; 0: none.
        layout: ``half`` or ``interleaved``, as in :class:`RopeSpec`.
        separate: q, k and v come as three tensors instead of one merged projection.
        block: P, slots in a block of keys, a multiple of 16.
    """

    heads: int
    kv_heads: int
    head_dim: int
    isa: Isa
    scale: float
    value_dim: int = 0
    causal: bool = False
    window: int = 0
    soft_cap: float = 0.0
    sinks: bool = False
    rotary: int = 0
    layout: str = "half"
    separate: bool = False
    block: int = 64
    name: str = "varlen_attention"

    @property
    def group(self) -> int:
        """Query heads per kv head."""
        return self.heads // self.kv_heads

    @property
    def values(self) -> int:
        """Ev, the width of a value head."""
        return self.value_dim or self.head_dim

    @property
    def tile_tokens(self) -> int:
        """Query tokens in a tile: about 96 rows, fewer where heads are wide."""
        return max(1, (96 if max(self.head_dim, self.values) <= 128 else 48) // self.group)

    @property
    def rows(self) -> int:
        """Rows that a tile has room for, a multiple of the register block."""
        return -(-self.tile_tokens * self.group // _HEIGHT) * _HEIGHT


@dataclass(frozen=True)
class _Call:
    """The buffers of a call, and the copies that it makes."""

    q: Buffer
    k: Buffer
    v: Buffer
    cu: Buffer
    sinks: Buffer | None
    out: Buffer
    turn: Turn | None
    keys: Buffer  # [blocks * Hkv, E, P]
    vals: Buffer  # [blocks * Hkv, P, Ev]
    k0: int
    v0: int

    def bounds(self, b: Expr) -> tuple[Expr, Expr]:
        """Return the first token of sequence ``b`` and how many it has."""
        first = bind(tirx.Cast("int64", load(self.cu, [b])))
        return first, bind(tirx.Cast("int64", load(self.cu, [b + 1])) - first)


@dataclass(frozen=True)
class _Pieces:
    """Sequences cut into pieces of ``size`` tokens: which sequence a piece belongs to, and where each one's begin."""

    size: int
    owner: Buffer  # [room]
    first: Buffer  # [B + 1]

    @staticmethod
    def cut(call: _Call, size: int, tokens: Expr, sequences: Expr) -> _Pieces:
        owner, first = workspace((tokens // size + sequences,), "int64"), workspace((sequences + 1,), "int64")
        store(first, [0], i64(0))
        with loop(sequences) as b:
            _, count = call.bounds(b)
            pieces = bind((count + size - 1) // size)
            start = bind(load(first, [b]))
            with loop(pieces) as i:
                store(owner, [start + i], b)
            store(first, [b + 1], start + pieces)
        return _Pieces(size, owner, first)

    def find(self, piece: Expr) -> tuple[Expr, Expr]:
        """Return the sequence of a piece and the first of its tokens, counted in the sequence."""
        b = bind(load(self.owner, [piece]))
        return b, bind((piece - load(self.first, [b])) * self.size)


def varlen_attention(spec: VarlenSpec) -> tirx.PrimFunc:
    """Return the PrimFunc.

    Arguments in order: ``qkv f32[T, (H + Hkv) * E + Hkv * Ev]`` (with ``separate``: ``q [T, H*E]``, ``k [T, Hkv*E]``,
    ``v [T, Hkv*Ev]``); ``cos f32[T, R/2]`` and ``sin f32[T, R/2]`` if ``rotary``; ``cu i32[B + 1]``, from 0 to T;
    ``sinks f32[H]`` if asked; ``out f32[T, H * Ev]``.
    """
    if spec.heads % spec.kv_heads or spec.block % 16:
        raise ValueError("varlen_attention: heads must be a multiple of kv_heads, block a multiple of 16")
    with kernel(spec.name) as k:
        t, offsets = dim("T"), dim("C")  # a size B + 1 would not say what B is
        b = offsets - 1
        call = _arguments(spec, k, t, offsets)
        blocks = _Pieces.cut(call, spec.block, t, b)
        tiles = _Pieces.cut(call, spec.tile_tokens, t, b)
        held = bind(load(blocks.first, [b]))
        _copy(spec, call, blocks, held)
        _attend(spec, call, blocks, tiles, held, bind(load(tiles.first, [b])))
    return k.func


def _arguments(spec: VarlenSpec, k: Kernel, t: Expr, offsets: Expr) -> _Call:
    h, kv, e, ev = spec.heads, spec.kv_heads, spec.head_dim, spec.values
    if spec.separate:
        q, key, value = k.arg("q", (t, h * e)), k.arg("k", (t, kv * e)), k.arg("v", (t, kv * ev))
    else:
        q = key = value = k.arg("qkv", (t, (h + kv) * e + kv * ev))
    turn = None
    if spec.rotary:
        rope = RopeSpec(h, e, spec.isa, rotary=spec.rotary, layout=spec.layout)
        turn = Turn(rope, k.arg("cos", (t, spec.rotary // 2)), k.arg("sin", (t, spec.rotary // 2)))
    cu = k.arg("cu", (offsets,), "int32")
    sinks = k.arg("sinks", (h,)) if spec.sinks else None
    out = k.arg("out", (t, h * ev))
    room = (t // spec.block + offsets - 1) * kv  # a sequence of n tokens has at most n // P + 1 blocks
    keys, vals = workspace((room, e, spec.block)), workspace((room, spec.block, ev))
    k0, v0 = (0, 0) if spec.separate else (h * e, (h + kv) * e)
    return _Call(q, key, value, cu, sinks, out, turn, keys, vals, k0, v0)


def _copy(spec: VarlenSpec, call: _Call, blocks: _Pieces, count: Expr) -> None:
    """Lay out keys and values; slots past the end of a sequence stay as they are, nobody sees them."""
    e, ev, lanes = spec.head_dim, spec.values, spec.isa.lanes
    with parallel(count * spec.kv_heads) as task:
        h, piece = bind(task // count), bind(task % count)
        b, at = blocks.find(piece)
        first, length = call.bounds(b)
        row = workspace((e,)) if e > 256 else scratch((e,))
        with loop(tirx.min(i64(spec.block), length - at)) as slot:
            token = bind(first + at + slot)
            base = bind(call.k0 + h * e)
            if call.turn is not None:
                call.turn.head(call.k, [token], base, None, token, row, [])
            else:
                for_columns(e, lanes, lambda c, n: store(row, [c], load(call.k, [token, base + c], n)))
            with loop(e) as c:
                store(call.keys, [task, c, slot], load(row, [c]))
            start = bind(call.v0 + h * ev)
            for_columns(ev, lanes, lambda c, n: store(call.vals, [task, slot, c], load(call.v, [token, start + c], n)))


def _attend(spec: VarlenSpec, call: _Call, blocks: _Pieces, tiles: _Pieces, held: Expr, count: Expr) -> None:
    size, rows = spec.block, spec.rows
    pages = KvPages("f32", call.keys, call.vals, spec.head_dim, spec.values, size)
    block = PageBlock(spec.isa, _HEIGHT, spec.head_dim, spec.values, size, spec.soft_cap, pages)
    with parallel(count * spec.kv_heads) as task:
        h, piece = bind(task // count), bind(task % count)
        b, at = tiles.find(piece)
        first, length = call.bounds(b)
        tokens = bind(tirx.min(i64(spec.tile_tokens), length - at))
        state = State(
            workspace((rows, spec.head_dim)), workspace((rows, spec.values)), scratch((rows,)), scratch((rows,)),
            workspace((rows, size)), scratch((rows,)),
        )  # fmt: skip
        _begin(spec, call, state, h, bind(first + at), tokens)
        begin = bind(_seen(spec, at, length)[0] // size)
        end = bind((_seen(spec, bind(at + tokens - 1), length)[1] + size - 1) // size)
        mine = bind(h * held + load(blocks.first, [b]))
        # One pass of all rows over the keys of a block and one over its values: each then stays in the first cache.
        with loop(end - begin) as i:
            base = bind((begin + i) * size)
            page = bind(mine + begin + i)
            for half in ("keys", "values"):
                with loop((tokens * spec.group + _HEIGHT - 1) // _HEIGHT) as j:
                    row0 = bind(j * _HEIGHT)
                    own = [bind(at + tirx.min((row0 + r) // spec.group, tokens - 1)) for r in range(_HEIGHT)]
                    low, high = (list(x) for x in zip(*(_seen(spec, o, length) for o in own), strict=True))
                    with when(tirx.all(base < high[-1], base + size > low[0])):
                        if half == "keys":
                            block.weigh(state, row0, page, base, low, high)
                        else:
                            block.gather(state, row0, page, base, high)
        _finish(spec, call, state, h, bind(first + at), tokens)


def _seen(spec: VarlenSpec, token: Expr, length: Expr) -> tuple[Expr, Expr]:
    """Return the tokens ``[low, high)`` of its sequence that ``token`` sees."""
    low = bind(tirx.max(i64(0), token - (spec.window - 1))) if spec.window else i64(0)
    if spec.causal:
        return low, bind(token + 1)
    return low, bind(tirx.min(length, token + spec.window)) if spec.window else length


def _begin(spec: VarlenSpec, call: _Call, state: State, h: Expr, first: Expr, tokens: Expr) -> None:
    """Load the queries with rotation and score factor, clear the rest; rows without a token are zero."""
    e, lanes = spec.head_dim, spec.isa.lanes
    factor = spec.scale if spec.soft_cap else spec.scale * LOG2E  # a soft cap comes before the change of units
    with loop(spec.rows) as r:
        store(state.top, [r], splat(EMPTY, 1))
        store(state.total, [r], splat(0.0, 1))
        for_columns(spec.values, lanes, lambda c, n: store(state.values, [r, c], splat(0.0, n)))
        with when(r < tokens * spec.group):
            token, base = bind(first + r // spec.group), bind((h * spec.group + r % spec.group) * e)
            if call.turn is not None:
                call.turn.head(call.q, [token], base, None, token, state.q, [r])
            else:
                for_columns(e, lanes, lambda c, n: store(state.q, [r, c], load(call.q, [token, base + c], n)))
            for_columns(e, lanes, lambda c, n: store(state.q, [r, c], load(state.q, [r, c], n) * splat(factor, n)))
        with when(r >= tokens * spec.group):
            for_columns(e, lanes, lambda c, n: store(state.q, [r, c], splat(0.0, n)))


def _finish(spec: VarlenSpec, call: _Call, state: State, h: Expr, first: Expr, tokens: Expr) -> None:
    """Divide by the sums (with the sinks in them) and write the output rows."""
    with loop(tokens * spec.group) as r:
        token, head = bind(first + r // spec.group), bind(h * spec.group + r % spec.group)
        _, total, keep = with_sink(bind(load(state.top, [r])), bind(load(state.total, [r])), call.sinks, head)
        factor = bind(keep / total)
        start = bind(head * spec.values)
        for_columns(
            spec.values,
            spec.isa.lanes,
            lambda c, n: store(call.out, [token, start + c], load(state.values, [r, c], n) * splat(factor, n)),
        )
