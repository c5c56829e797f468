"""RMSNorm and LayerNorm over rows."""

from __future__ import annotations

from tvm import tirx

from fretsaw.backends.program.specs.layers import NormSpec
from fretsaw.backends.tvm.kernels import math
from fretsaw.backends.tvm.kernels.emit import Buffer, Expr, bind, dim, fma, kernel, load, loop, parallel, splat, store
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns, reduce_row, scale_by

_BLOCK = 8  # rows per parallel iteration


def inverse_rms(x: Buffer, head: list[Expr], width: int, lanes: int, eps: float) -> Expr:
    """Return ``1 / sqrt(mean(x^2) + eps)`` of one row."""

    def square(total: Expr, c: Expr, n: int) -> Expr:
        value = bind(load(x, [*head, c], n))
        return fma(value, value, total)

    total = reduce_row(width, lanes, square)
    return math.rsqrt(bind(fma(total, splat(1.0 / width, 1), splat(eps, 1))))


def norm(spec: NormSpec, isa: Isa) -> tirx.PrimFunc:
    """Return the PrimFunc of a norm.

    Arguments in order: ``x f32[T, D]`` (or [T, H, D]); ``gain f32[D]`` if asked; ``bias f32[D]`` if asked; ``out``.
    """
    with kernel(spec.name) as k:
        t = dim("T")
        shape = (t, spec.heads, spec.width) if spec.heads else (t, spec.width)
        x = k.arg("x", shape)
        gain = k.arg("gain", (spec.width,)) if spec.gain else None
        bias = k.arg("bias", (spec.width,)) if spec.bias else None
        out = k.arg("out", shape)
        rows = t * spec.heads if spec.heads else t
        with parallel((rows + _BLOCK - 1) // _BLOCK) as block, loop(tirx.min(rows - block * _BLOCK, _BLOCK)) as i:
            row = bind(block * _BLOCK + i)
            head = [row // spec.heads, row % spec.heads] if spec.heads else [row]
            _normalize(spec, isa.lanes, x, head, gain, bias, out)
    return k.func


def _normalize(
    spec: NormSpec, lanes: int, x: Buffer, head: list[Expr], gain: Buffer | None, bias: Buffer | None, out: Buffer
) -> None:
    width = spec.width
    mean: Expr | None = None
    if spec.kind == "rms":
        inverse = inverse_rms(x, head, width, lanes, spec.eps)
    else:
        total = reduce_row(width, lanes, lambda s, c, n: s + load(x, [*head, c], n))
        mean = bind(total * splat(1.0 / width, 1))

        def deviation(s: Expr, c: Expr, n: int) -> Expr:
            d = bind(load(x, [*head, c], n) - splat(mean, n))
            return fma(d, d, s)

        square = reduce_row(width, lanes, deviation)
        inverse = math.rsqrt(bind(fma(square, splat(1.0 / width, 1), splat(spec.eps, 1))))

    def finish(c: Expr, n: int) -> None:
        value = load(x, [*head, c], n)
        if mean is not None:
            value = value - splat(mean, n)
        value = scale_by(value, inverse, n)
        if bias is not None:
            unit = splat(1.0, n) if gain is None else load(gain, [c], n)
            value = fma(value, unit, load(bias, [c], n))
        elif gain is not None:
            value = value * load(gain, [c], n)
        store(out, [*head, c], value)

    for_columns(width, lanes, finish)
