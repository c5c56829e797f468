"""Mixture of experts without padding: route, sort the (token, slot) pairs by expert, grouped GEMMs, combine.

Only experts that some token chose are computed, for exactly the rows that chose them. An output element is the same
chain of fused multiply-adds as in ``gemm``, and the slots of a token are added in slot order, so the result for a
token does not depend on the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tvm import tirx

from fretsaw.backends.tvm.kernels import math
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    dim,
    fma,
    kernel,
    load,
    loop,
    parallel,
    scratch,
    splat,
    store,
    when,
)
from fretsaw.backends.tvm.kernels.epilogue import Epilogue, Sink
from fretsaw.backends.tvm.kernels.isa import PANEL, Isa
from fretsaw.backends.tvm.kernels.pack import STORAGE
from fretsaw.backends.tvm.kernels.rows import for_columns
from fretsaw.backends.tvm.kernels.tile import accumulate, widen_load


@dataclass(frozen=True)
class RouteSpec:
    """Choice of experts.

    Args:
        scoring: ``softmax`` over all experts, ``softmax_topk`` over the chosen ones only, or ``sigmoid``.
        norm_topk: divide the chosen weights by their sum.
        scale: constant factor of the weights.
    """

    experts: int
    top_k: int
    scoring: str = "softmax"
    norm_topk: bool = False
    scale: float = 1.0
    name: str = "moe_route"


def moe_route(spec: RouteSpec) -> tirx.PrimFunc:
    """Return the PrimFunc that picks the top k experts; equal logits go to the lowest index.

    Arguments in order: ``logits f32[T, E]``; ``idx i32[T, k]``; ``weights f32[T, k]``.
    """
    with kernel(spec.name) as k:
        t = dim("T")
        logits = k.arg("logits", (t, spec.experts))
        idx = k.arg("idx", (t, spec.top_k), "int32")
        weights = k.arg("weights", (t, spec.top_k))
        with parallel(t) as row:
            with loop(spec.top_k) as slot:
                _pick(spec, logits, idx, row, slot)
            _weigh(spec, logits, idx, weights, row)
    return k.func


def _pick(spec: RouteSpec, logits: Buffer, idx: Buffer, row: Expr, slot: Expr) -> None:
    best, at, taken = scratch((1,)), scratch((1,), "int32"), scratch((1,), "int32")
    store(best, [0], splat(float("-inf"), 1))
    store(at, [0], tirx.const(-1, "int32"))
    with loop(spec.experts) as e:
        store(taken, [0], tirx.const(0, "int32"))
        with loop(slot) as s, when(tirx.Cast("int64", load(idx, [row, s])) == e):
            store(taken, [0], tirx.const(1, "int32"))
        value = bind(load(logits, [row, e]))
        # The first free expert is taken whatever its logit, so that -inf and NaN still give valid indices.
        free = load(taken, [0]) == 0
        with when(tirx.all(free, tirx.any(value > load(best, [0]), load(at, [0]) < 0))):
            store(best, [0], value)
            store(at, [0], tirx.Cast("int32", e))
    store(idx, [row, slot], load(at, [0]))


def _weigh(spec: RouteSpec, logits: Buffer, idx: Buffer, weights: Buffer, row: Expr) -> None:
    top = bind(load(logits, [row, tirx.Cast("int64", load(idx, [row, 0]))]))  # the largest logit
    total = scratch((1,))
    store(total, [0], splat(0.0, 1))
    if spec.scoring == "softmax":
        with loop(spec.experts) as e:
            store(total, [0], load(total, [0]) + math.exp_nonpositive(bind(load(logits, [row, e]) - top)))
    with loop(spec.top_k) as s:
        logit = bind(load(logits, [row, tirx.Cast("int64", load(idx, [row, s]))]))
        value = math.sigmoid(logit) if spec.scoring == "sigmoid" else math.exp_nonpositive(bind(logit - top))
        store(weights, [row, s], value)
    if spec.scoring == "softmax_topk":
        with loop(spec.top_k) as s:
            store(total, [0], load(total, [0]) + load(weights, [row, s]))
    if spec.scoring != "sigmoid":
        with loop(spec.top_k) as s:
            store(weights, [row, s], load(weights, [row, s]) / load(total, [0]))
    if spec.norm_topk:
        store(total, [0], splat(0.0, 1))
        with loop(spec.top_k) as s:
            store(total, [0], load(total, [0]) + load(weights, [row, s]))
        with loop(spec.top_k) as s:
            store(weights, [row, s], load(weights, [row, s]) / load(total, [0]))
    if spec.scale != 1.0:
        with loop(spec.top_k) as s:
            store(weights, [row, s], load(weights, [row, s]) * splat(spec.scale, 1))


def moe_scan(experts: int, top_k: int, name: str = "moe_scan") -> tirx.PrimFunc:
    """Return the PrimFunc of a stable counting sort of the pairs by expert.

    Arguments in order: ``idx i32[T, k]``; ``offsets i32[E + 1]`` (rows of expert e: ``offsets[e] ... offsets[e + 1]``);
    ``order i32[T * k]`` (row -> pair ``t * k + slot``); ``place i32[T, k]`` (pair -> row, the inverse).
    """
    with kernel(name) as k:
        t = dim("T")
        idx = k.arg("idx", (t, top_k), "int32")
        offsets = k.arg("offsets", (experts + 1,), "int32")
        order = k.arg("order", (t * top_k,), "int32")
        place = k.arg("place", (t, top_k), "int32")
        with loop(experts + 1) as e:
            store(offsets, [e], tirx.const(0, "int32"))
        # Counts go one place up; the prefix sum then gives starts, and filling moves each start to its end.
        with loop(t) as row, loop(top_k) as s:
            e = bind(tirx.Cast("int64", load(idx, [row, s])))
            store(offsets, [e + 1], load(offsets, [e + 1]) + 1)
        with loop(experts) as e:
            store(offsets, [e + 1], load(offsets, [e + 1]) + load(offsets, [e]))
        with loop(t) as row, loop(top_k) as s:
            e = bind(tirx.Cast("int64", load(idx, [row, s])))
            to = bind(tirx.Cast("int64", load(offsets, [e])))
            store(order, [to], tirx.Cast("int32", row * top_k + s))
            store(place, [row, s], tirx.Cast("int32", to))
            store(offsets, [e], load(offsets, [e]) + 1)
        with loop(experts) as back:
            e = bind(experts - back)
            store(offsets, [e], load(offsets, [e - 1]))
        store(offsets, [0], tirx.const(0, "int32"))
    return k.func


@dataclass(frozen=True)
class ExpertGemmSpec:
    """A GEMM per expert over the rows that chose it.

    Args:
        n, k: columns and depth (with a GLU, n is F).
        top_k: slots per token; used with ``gather``.
        gather: input rows are tokens, found through ``order``; otherwise they are already in expert order.
        epilogue: bias (then [E, N], GLU [E, F] twice), activation or GLU; no residual.
    """

    experts: int
    n: int
    k: int
    top_k: int
    isa: Isa
    gather: bool
    weight: str = "float32"
    epilogue: Epilogue = field(default_factory=Epilogue)
    name: str = "expert_gemm"


def expert_gemm(spec: ExpertGemmSpec) -> tirx.PrimFunc:
    """Return the PrimFunc of a grouped GEMM.

    Arguments in order: ``x f32[T, K]`` with ``gather``, else ``f32[M, K]``; ``order i32[M]`` with ``gather``;
    ``offsets i32[E + 1]``; ``w [E, panels, K, 16]`` (uint16 for bf16); ``bias f32[E, N]`` if asked (GLU:
    ``gate_bias[E, F]``, ``up_bias[E, F]``); ``out f32[M, N]`` in expert order, M = T * k.
    """
    epilogue = spec.epilogue
    panels = -(-spec.n // (8 if epilogue.glu else PANEL))
    with kernel(spec.name) as k:
        m = dim("M")
        x = k.arg("x", (dim("T") if spec.gather else m, spec.k))
        order = k.arg("order", (m,), "int32") if spec.gather else None
        offsets = k.arg("offsets", (spec.experts + 1,), "int32")
        w = k.arg("w", (spec.experts, panels, spec.k, PANEL), STORAGE[spec.weight])
        names = ("gate_bias", "up_bias") if epilogue.glu else ("bias",)
        bias = tuple(k.arg(name, (spec.experts, spec.n)) for name in names) if epilogue.bias else ()
        out = k.arg("out", (m, spec.n))
        # Panel-major: the panels of one expert are spread over the threads, whatever the experts' loads are.
        with parallel(panels) as panel, loop(spec.experts) as e:
            start, end = bind(tirx.Cast("int64", load(offsets, [e]))), bind(tirx.Cast("int64", load(offsets, [e + 1])))
            sink = Sink(epilogue, out, spec.n, bias, bias_row=e)
            count, height = bind(end - start), spec.isa.rows

            def tile(rows: int, row0: Expr) -> None:
                outs = [bind(row0 + r) for r in range(rows)]
                source = outs
                if order is not None:
                    source = [bind(tirx.Cast("int64", load(order, [row])) // spec.top_k) for row in outs]
                done = accumulate(
                    spec.isa,
                    rows,
                    1,
                    spec.k,
                    lambda r, c: load(x, [source[r], c]),
                    lambda _, c, j: widen_load(w, [e, panel, c, j], spec.isa.lanes),
                )
                sink.write_tile(done, outs, panel)

            with loop(count // height) as i:
                tile(height, bind(start + i * height))
            for rows in range(1, height):
                with when(count % height == rows):
                    tile(rows, bind(end - rows))
    return k.func


def moe_combine(width: int, top_k: int, isa: Isa, residual: bool = False, name: str = "moe_combine") -> tirx.PrimFunc:
    """Return the PrimFunc of ``out[t] = sum over slots of weights[t, s] * y[place[t, s]]``, in slot order.

    Arguments in order: ``y f32[M, D]`` in expert order; ``place i32[T, k]``; ``weights f32[T, k]``; ``residual f32[T, D]``
    if asked (added last); ``out f32[T, D]``.
    """
    with kernel(name) as k:
        t, m = dim("T"), dim("M")
        y = k.arg("y", (m, width))
        place = k.arg("place", (t, top_k), "int32")
        weights = k.arg("weights", (t, top_k))
        extra = k.arg("residual", (t, width)) if residual else None
        out = k.arg("out", (t, width))
        with parallel(t) as row:
            rows = [bind(tirx.Cast("int64", load(place, [row, s]))) for s in range(top_k)]
            factors = [bind(load(weights, [row, s])) for s in range(top_k)]

            def column(c: Expr, n: int) -> None:
                value = splat(0.0, n)
                for source, factor in zip(rows, factors, strict=True):
                    value = fma(load(y, [source, c], n), splat(factor, n), value)
                if extra is not None:
                    value = bind(value) + load(extra, [row, c], n)
                store(out, [row, c], value)

            for_columns(width, isa.lanes, column)
    return k.func


