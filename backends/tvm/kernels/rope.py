"""Rotary position embedding: angles once per step, rotation of q and k, and the append of k and v to the pages.

Page layout: ``k_pages f32[NP, E, P]`` holds keys transposed (a vector of neighbouring slots is what attention
reads), ``v_pages f32[NP, P, Ev]`` values row by row. Token i of sequence b lands in slot ``lens[layer, b, h] + i``.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.program.kv_storage import KvType
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    dim,
    fma,
    i64,
    kernel,
    load,
    loop,
    parallel,
    scratch,
    splat,
    store,
    when,
)
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.kv_pages import KvPages
from fretsaw.backends.tvm.kernels.norm import inverse_rms
from fretsaw.backends.tvm.kernels.rows import for_columns, scale_by


@dataclass(frozen=True)
class RopeSpec:
    """Rotation of heads, and with ``rope_append`` the geometry of the cache.

    Args:
        heads, kv_heads: H and Hkv.
        head_dim, value_dim: E and Ev (0 means E).
        rotary: R, the leading part of a head that is rotated (even; 0 means no rotation).
        layout: ``half`` pairs i with i + R/2; ``interleaved`` pairs 2i with 2i + 1.
        page: P, slots in a page.
        q_norm, k_norm: RMSNorm per head before the rotation, with gains [E].
        separate: q, k and v come as three tensors instead of one merged projection.
        kv: how the pages are stored.
    """

    heads: int
    head_dim: int
    isa: Isa
    kv_heads: int = 0
    value_dim: int = 0
    rotary: int = -1
    layout: str = "half"
    page: int = 64
    q_norm: bool = False
    k_norm: bool = False
    eps: float = 1e-6
    separate: bool = False
    kv: KvType = "f32"
    name: str = "rope"

    @property
    def turned(self) -> int:
        """R, the number of rotated values of a head."""
        return self.head_dim if self.rotary < 0 else self.rotary

    @property
    def values(self) -> int:
        """Ev, the width of a value head."""
        return self.value_dim or self.head_dim


def rope_angles(pairs: int, scaling: float = 1.0, name: str = "rope_angles") -> tirx.PrimFunc:
    """Return the PrimFunc that computes the angles of a step.

    Arguments in order: ``positions i32[T]``; ``inv_freq f32[R/2]``; ``cos f32[T, R/2]``; ``sin f32[T, R/2]``. The
    angle is the f32 product; ``scaling`` multiplies both results (YaRN and LongRoPE attention factor).
    """
    with kernel(name) as k:
        t = dim("T")
        positions = k.arg("positions", (t,), "int32")
        inv_freq = k.arg("inv_freq", (pairs,))
        cos = k.arg("cos", (t, pairs))
        sin = k.arg("sin", (t, pairs))
        with parallel(t) as row:
            position = bind(tirx.Cast("float32", load(positions, [row])))
            with loop(pairs) as c:
                angle = bind(position * load(inv_freq, [c]))
                store(cos, [row, c], T.cos(angle) * splat(scaling, 1))
                store(sin, [row, c], T.sin(angle) * splat(scaling, 1))
    return k.func


@dataclass(frozen=True)
class Turn:
    """Rotates one head of one token from a source row into a destination row."""

    spec: RopeSpec
    cos: Buffer
    sin: Buffer

    def head(
        self, x: Buffer, at: list[Expr], base: Expr, gain: Buffer | None, token: Expr, out: Buffer, to: list[Expr]
    ) -> None:
        """Emit norm (with ``gain``) and rotation of ``x[*at, base : base + E]`` into ``out[*to, 0 : E]``."""
        spec, lanes = self.spec, self.spec.isa.lanes
        if gain is not None:
            normed = scratch((spec.head_dim,))
            for_columns(spec.head_dim, lanes, lambda c, n: store(normed, [c], load(x, [*at, base + c], n)))
            inverse = inverse_rms(normed, [], spec.head_dim, lanes, spec.eps)

            def scaled(c: Expr, n: int) -> None:
                store(normed, [c], scale_by(load(normed, [c], n), inverse, n) * load(gain, [c], n))

            for_columns(spec.head_dim, lanes, scaled)
            x, at, base = normed, [], i64(0)
        half = spec.turned // 2

        def turn(c: Expr, n: int) -> None:
            first, second = (2 * c, 2 * c + 1) if spec.layout == "interleaved" else (c, c + half)
            a = bind(load(x, [*at, base + first], n))
            b = bind(load(x, [*at, base + second], n))
            cos, sin = bind(load(self.cos, [token, c], n)), bind(load(self.sin, [token, c], n))
            store(out, [*to, first], fma(a, cos, bind(splat(0.0, n) - bind(b * sin))))
            store(out, [*to, second], fma(b, cos, bind(a * sin)))

        for_columns(half, 1 if spec.layout == "interleaved" else lanes, turn)
        rest = spec.head_dim - spec.turned
        for_columns(
            rest, lanes, lambda c, n: store(out, [*to, spec.turned + c], load(x, [*at, base + spec.turned + c], n))
        )


def rope(spec: RopeSpec) -> tirx.PrimFunc:
    """Return the PrimFunc that rotates heads and keeps no cache.

    Arguments in order: ``x f32[T, H, E]``; ``cos f32[T, R/2]``; ``sin f32[T, R/2]``; ``gain f32[E]`` if ``q_norm``;
    ``out f32[T, H, E]``.
    """
    with kernel(spec.name) as k:
        t = dim("T")
        x = k.arg("x", (t, spec.heads, spec.head_dim))
        turn = Turn(spec, k.arg("cos", (t, spec.turned // 2)), k.arg("sin", (t, spec.turned // 2)))
        gain = k.arg("gain", (spec.head_dim,)) if spec.q_norm else None
        out = k.arg("out", (t, spec.heads, spec.head_dim))
        with parallel(t) as token, loop(spec.heads) as h:
            turn.head(x, [token, h], i64(0), gain, token, out, [token, h])
    return k.func


def sequence_of(cu: Buffer, sequences: Expr, token: Expr) -> Expr:
    """Return the sequence that owns a token of the step, by a scan of the offsets."""
    found = scratch((1,), "int64")
    store(found, [0], i64(0))
    with loop(sequences - 1) as b, when(tirx.Cast("int64", load(cu, [b + 1])) <= token):
        store(found, [0], b + 1)
    return bind(load(found, [0]))


def rope_append(spec: RopeSpec) -> tirx.PrimFunc:
    """Return the PrimFunc that rotates q and k and appends k and v to the cache.

    Arguments in order: ``qkv f32[T, (H + Hkv) * E + Hkv * Ev]`` (with ``separate``: ``q [T, H*E]``, ``k [T, Hkv*E]``,
    ``v [T, Hkv*Ev]``); ``cos f32[T, R/2]``; ``sin f32[T, R/2]``; ``q_gain f32[E]`` if ``q_norm``; ``k_gain f32[E]`` if
    ``k_norm``; ``table i32[L, B, Hkv, MAXP]``; ``lens i32[L, B, Hkv]``; ``cu i32[B + 1]``; ``k_pages f32[NP, E, P]``
    and ``v_pages f32[NP, P, Ev]`` (written in place, rounded to ``kv`` here and nowhere else; int8 pages are bytes);
    ``q_out f32[T, H, E]``; ``layer`` (int64).
    """
    h, kv, e, ev = spec.heads, spec.kv_heads, spec.head_dim, spec.values
    with kernel(spec.name) as k:
        t, b, pages, width, layers = dim("T"), dim("B"), dim("NP"), dim("MAXP"), dim("L")
        if spec.separate:
            q, key = k.arg("q", (t, h * e)), k.arg("k", (t, kv * e))
            value = k.arg("v", (t, kv * ev))
            k0, v0 = 0, 0
        else:
            q = key = value = k.arg("qkv", (t, (h + kv) * e + kv * ev))
            k0, v0 = h * e, (h + kv) * e
        turn = Turn(spec, k.arg("cos", (t, spec.turned // 2)), k.arg("sin", (t, spec.turned // 2)))
        q_gain = k.arg("q_gain", (e,)) if spec.q_norm else None
        k_gain = k.arg("k_gain", (e,)) if spec.k_norm else None
        table = k.arg("table", (layers, b, kv, width), "int32")
        lens = k.arg("lens", (layers, b, kv), "int32")
        cu = k.arg("cu", (b + 1,), "int32")
        pool = KvPages.declare(k, spec.kv, pages, e, ev, spec.page)
        q_out = k.arg("q_out", (t, h, e))
        layer = k.scalar("layer")
        with parallel(t) as token:
            with loop(h) as head:
                turn.head(q, [token], head * e, q_gain, token, q_out, [token, head])
            s = sequence_of(cu, b, token)
            offset = bind(token - tirx.Cast("int64", load(cu, [s])))
            with loop(kv) as head:
                slot = bind(tirx.Cast("int64", load(lens, [layer, s, head])) + offset)
                page = bind(tirx.Cast("int64", load(table, [layer, s, head, slot // spec.page])))
                at = bind(slot % spec.page)
                rotated = scratch((e,))
                turn.head(key, [token], k0 + head * e, k_gain, token, rotated, [])
                pool.append(page, at, rotated, (value, [token, v0 + head * ev]), spec.isa.lanes)
    return k.func
