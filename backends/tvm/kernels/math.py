"""Vector exp, tanh, sigmoid, erfc and the activations made of them: polynomials, never libm.

All take and return f32 expressions of any number of lanes and write their intermediate values into the
PrimFunc under construction. NaN goes in, NaN comes out; the infinities give the exact limits. Largest
errors against f64, over the ranges in ``tests/backends/kernels/test_math.py``:

    exp      2 ulp where the result is normal; below -87.3 the result is 0
    exp2     2.5 ulp for x <= 0 where the result is normal; exactly 0 at -inf
    tanh     4 ulp, sigmoid 4 ulp
    erfc     relative 1e-5 down to results of 1e-30; gelu_erf absolute 3e-7 * max(1, |x|)
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels.emit import (
    Expr,
    bind,
    fma,
    fmax,
    lanes_of,
    select,
    splat,
    splat_int,
    vtype,
)

_LOG2E = 1.4426950408889634
_LN2_HIGH = 0.693359375  # 355/512: n * _LN2_HIGH is exact for every n that occurs
_LN2_LOW = -2.12194440054690583e-4
_ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves the nearest integer in the low mantissa bits
_EXP_MIN, _EXP_MAX = -87.33, 88.72283
# Least-squares fit of exp(r) on |r| <= ln(2)/2 with the first two coefficients fixed to one.
_EXP = (1.0, 1.0, 0.5, 0.16666667, 0.041666646, 0.0083334, 0.0013887316, 0.00019841)
# Minimax fit of 2**r in relative error on |r| <= 1/2 with the first coefficient fixed to one; 9e-8.
_EXP2 = (1.0, 0.693147, 0.24022242, 0.055507336, 0.009671513, 0.0013264727)
_EXP2_MIN = -127.0  # its exponent field is 0 and its mantissa 1.0: the bits of +0
# tanh(x) / x in x*x for |x| <= 0.625.
_TANH = (-0.33333314, 0.13331416, -0.053739034, 0.020639049, -0.005704978)
# erfc(z) * exp(z*z) as a polynomial in t = 1/(1 + z/2) without constant term; relative error 4e-8.
_ERFC = (
    0.2820887267589569,
    0.28233543038368225,
    0.24339014291763306,
    0.20156563818454742,
    -0.023998789489269257,
    0.2742815911769867,
    -0.4839109182357788,
    0.28299450874328613,
    -0.058746371418237686,
)


def polynomial(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    """Return ``c0 + c1*x + c2*x*x + ...`` by Horner's rule."""
    lanes = lanes_of(x)
    value = splat(coefficients[-1], lanes)
    for c in reversed(coefficients[:-1]):
        value = bind(fma(value, x, splat(c, lanes)))
    return value


def _exp_core(x: Expr, clamped: Expr) -> Expr:
    """Return exp(x) for x in [_EXP_MIN, _EXP_MAX]; ``clamped`` is x forced into that range."""
    lanes = lanes_of(x)
    shifted = bind(fma(clamped, splat(_LOG2E, lanes), splat(_ROUND, lanes)))
    n = bind(shifted - splat(_ROUND, lanes))
    r = bind(fma(n, splat(-_LN2_HIGH, lanes), x))
    r = bind(fma(n, splat(-_LN2_LOW, lanes), r))
    mantissa = polynomial(r, _EXP)
    ints = vtype("int32", lanes)
    # The integer n sits in the low bits of `shifted`; moved to the exponent field it scales by 2**n.
    # A quiet NaN stays one: `clamped` keeps it and its low bits are zero.
    bits = T.reinterpret(ints, mantissa) + (T.reinterpret(ints, shifted) << splat_int(23, lanes))
    return bind(T.reinterpret(vtype("float32", lanes), bits))


def exp_nonpositive(x: Expr) -> Expr:
    """Return exp(x) for x <= 0 (softmax): exactly 0 at -inf and below -87.3, exactly 1 at 0."""
    lanes = lanes_of(x)
    low = splat(_EXP_MIN, lanes)
    x = bind(x)
    value = _exp_core(x, bind(fmax(low, x)))
    return bind(select(x < low, splat(0.0, lanes), value))


def exp2_nonpositive(x: Expr) -> Expr:
    """Return 2**x for x <= 0 (softmax in base 2): exactly 1 at 0, exactly 0 at -inf, at most 2**-126 below -126.

    Reduction by an integer is exact in base 2, which saves a third of the work of ``exp``.
    """
    lanes = lanes_of(x)
    clamped = bind(fmax(splat(_EXP2_MIN, lanes), bind(x)))
    shifted = bind(clamped + splat(_ROUND, lanes))
    mantissa = polynomial(bind(clamped - bind(shifted - splat(_ROUND, lanes))), _EXP2)
    ints = vtype("int32", lanes)
    bits = T.reinterpret(ints, mantissa) + (T.reinterpret(ints, shifted) << splat_int(23, lanes))
    return bind(T.reinterpret(vtype("float32", lanes), bits))


def exp(x: Expr) -> Expr:
    """Return exp(x)."""
    lanes = lanes_of(x)
    low, high = splat(_EXP_MIN, lanes), splat(_EXP_MAX, lanes)
    x = bind(x)
    above = bind(fmax(low, x))
    value = _exp_core(x, bind(select(high < above, high, above)))
    value = bind(select(x < low, splat(0.0, lanes), value))
    return bind(select(x > high, splat(float("inf"), lanes), value))


def sigmoid(x: Expr) -> Expr:
    """Return 1 / (1 + exp(-x))."""
    one = splat(1.0, lanes_of(x))
    return bind(one / (one + exp(splat(0.0, lanes_of(x)) - x)))


def silu(x: Expr) -> Expr:
    """Return x * sigmoid(x)."""
    x = bind(x)
    lanes = lanes_of(x)
    return bind(x / (splat(1.0, lanes) + exp(splat(0.0, lanes) - x)))


def tanh(x: Expr) -> Expr:
    """Return tanh(x)."""
    lanes = lanes_of(x)
    x = bind(x)
    size = bind(select(x < splat(0.0, lanes), splat(0.0, lanes) - x, x))
    square = bind(x * x)
    near = bind(fma(bind(square * polynomial(square, _TANH)), x, x))
    decay = exp_nonpositive(size * splat(-2.0, lanes))
    far = bind((splat(1.0, lanes) - decay) / (splat(1.0, lanes) + decay))
    far = bind(select(x < splat(0.0, lanes), splat(0.0, lanes) - far, far))
    return bind(select(size < splat(0.625, lanes), near, far))


def erfc_nonnegative(z: Expr) -> Expr:
    """Return erfc(z) = 1 - erf(z) for z >= 0, with small relative error down to the smallest results."""
    lanes = lanes_of(z)
    z = bind(z)
    t = bind(splat(1.0, lanes) / fma(z, splat(0.5, lanes), splat(1.0, lanes)))
    tail = bind(t * polynomial(t, _ERFC))
    return bind(tail * exp_nonpositive(splat(0.0, lanes) - z * z))


def gelu_erf(x: Expr) -> Expr:
    """Return x * (1 + erf(x / sqrt(2))) / 2, the exact GELU."""
    lanes = lanes_of(x)
    x = bind(x)
    zero = splat(0.0, lanes)
    size = bind(select(x < zero, zero - x, x))
    tail = erfc_nonnegative(size * splat(0.7071067811865476, lanes))
    gate = bind(select(x < zero, tail, splat(2.0, lanes) - tail))
    return bind(x * splat(0.5, lanes) * gate)


def gelu_tanh(x: Expr) -> Expr:
    """Return x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))), written through a sigmoid of twice that."""
    lanes = lanes_of(x)
    x = bind(x)
    cube = bind(x * x * x)
    inner = bind(fma(cube, splat(0.044715, lanes), x) * splat(-1.5957691216057308, lanes))
    return bind(x / (splat(1.0, lanes) + exp(inner)))


def relu(x: Expr) -> Expr:
    """Return max(x, 0)."""
    x = bind(x)
    return bind(select(x < splat(0.0, lanes_of(x)), splat(0.0, lanes_of(x)), x))


def square_relu(x: Expr) -> Expr:
    """Return max(x, 0) squared."""
    y = relu(x)
    return bind(y * y)


def sqrt(x: Expr) -> Expr:
    """Return the square root, correctly rounded."""
    return bind(tirx.call_llvm_pure_intrin(str(x.ty.dtype), "llvm.sqrt", x))


def rsqrt(x: Expr) -> Expr:
    """Return 1 / sqrt(x), both correctly rounded."""
    root = tirx.call_llvm_pure_intrin(str(x.ty.dtype), "llvm.sqrt", x)
    return bind(splat(1.0, lanes_of(x)) / root)


def soft_cap(x: Expr, cap: float, factor: float = 1.0) -> Expr:
    """Return factor * cap * tanh(x / cap)."""
    lanes = lanes_of(x)
    return bind(tanh(x * splat(1.0 / cap, lanes)) * splat(cap * factor, lanes))


ACTIVATIONS: dict[str, Callable[[Expr], Expr]] = {
    "silu": silu,
    "gelu": gelu_erf,
    "gelu_tanh": gelu_tanh,
    "relu": relu,
    "relu2": square_relu,
    "sigmoid": sigmoid,
    "tanh": tanh,
}
