"""The choice of experts: top-k of the router's logits with their weights, then a stable counting sort by expert.

A token's choice reads that token's logits alone, so it is the same in any batch. The sort is serial: it moves
T*k integers, which is nothing beside the GEMMs that follow, and its order must not depend on threads.
"""

from __future__ import annotations

from tvm import tirx

from fretsaw.backends.program.specs.moe import RouteSpec
from fretsaw.backends.tvm.kernels import math
from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    bind,
    dim,
    i32,
    kernel,
    load,
    loop,
    parallel,
    scratch,
    select,
    splat,
    store,
    workspace,
)
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.rows import for_columns, reduce_row

_BLOCK = 8  # rows per parallel iteration


def route(spec: RouteSpec, isa: Isa) -> tirx.PrimFunc:
    """Return the PrimFunc of the choice: larger logits first, equal ones by the lower index.

    Arguments in order: ``logits f32[T, E]``; ``index i32[T, k]`` and ``weight f32[T, k]``, both written. The indices
    of a token are distinct and in [0, E) for any logits, NaN included. Choosing by logits is choosing by softmax
    (which keeps their order), less the ties that its rounding makes.
    """
    with kernel(spec.name) as k:
        t = dim("T")
        logits = k.arg("logits", (t, spec.experts))
        index = k.arg("index", (t, spec.slots), "int32")
        weight = k.arg("weight", (t, spec.slots))
        with parallel((t + _BLOCK - 1) // _BLOCK) as block:
            free = workspace((spec.experts,), "int32")  # 1 where not chosen yet
            powers = workspace((spec.experts,))
            with loop(tirx.min(t - block * _BLOCK, _BLOCK)) as i:
                row = bind(block * _BLOCK + i)
                with loop(spec.experts) as e:
                    store(free, [e], i32(1))
                with loop(spec.slots) as slot:
                    store(index, [row, slot], _largest(spec, logits, free, row))
                _weigh(spec, isa.lanes, logits, powers, index, weight, row)
    return k.func


def _largest(spec: RouteSpec, logits: Buffer, free: Buffer, row: Expr) -> Expr:
    """Take the first largest free expert: its number, which is no longer free."""
    best, value = scratch((1,), "int32"), scratch((1,))
    store(best, [0], i32(-1))
    store(value, [0], splat(0.0, 1))
    with loop(spec.experts) as e:
        x = bind(load(logits, [row, e]))
        # The first free expert is taken whatever its logit, so that NaN cannot leave the number unset.
        larger = tirx.any(load(best, [0]) < i32(0), x > load(value, [0]))
        take = bind(tirx.Cast("int32", tirx.all(load(free, [e]) == i32(1), larger)))
        store(best, [0], select(take == i32(1), tirx.Cast("int32", e), load(best, [0])))
        store(value, [0], select(take == i32(1), x, load(value, [0])))
    store(free, [tirx.Cast("int64", load(best, [0]))], i32(0))
    return load(best, [0])


def _weigh(
    spec: RouteSpec, lanes: int, logits: Buffer, powers: Buffer, index: Buffer, weight: Buffer, row: Expr
) -> None:
    """Softmax weights of the chosen experts; the first chosen logit is the largest of all."""

    def chosen(slot: Expr) -> Expr:
        return bind(tirx.Cast("int64", load(index, [row, slot])))

    top = bind(load(logits, [row, chosen(tirx.const(0, "int64"))]))
    if not spec.before:
        with loop(spec.slots) as slot:
            x = bind(load(logits, [row, chosen(slot)]) - top)
            store(weight, [row, slot], math.exp_nonpositive(x))
        _divide_by_sum(spec, weight, row)
        return
    for_columns(
        spec.experts,
        lanes,
        lambda c, n: store(powers, [c], math.exp_nonpositive(load(logits, [row, c], n) - splat(top, n))),
    )
    total = bind(reduce_row(spec.experts, lanes, lambda s, c, n: s + load(powers, [c], n)))
    with loop(spec.slots) as slot:
        store(weight, [row, slot], load(powers, [chosen(slot)]) / total)
    if spec.normalize:
        _divide_by_sum(spec, weight, row)


def _divide_by_sum(spec: RouteSpec, weight: Buffer, row: Expr) -> None:
    total = scratch((1,))
    store(total, [0], splat(0.0, 1))
    with loop(spec.slots) as slot:
        store(total, [0], load(total, [0]) + load(weight, [row, slot]))
    with loop(spec.slots) as slot:
        store(weight, [row, slot], load(weight, [row, slot]) / load(total, [0]))


def sort_by_expert(experts: int, slots: int, name: str = "sort_by_expert") -> tirx.PrimFunc:
    """Return the PrimFunc of a stable counting sort of (token, slot) pairs by expert.

    Arguments in order: ``index i32[T, k]``, each in [0, E); ``offsets i32[E + 1]`` and ``order i32[T*k]``, both
    written: expert e has the pairs ``order[offsets[e]:offsets[e + 1]]``, ascending, a pair being ``token*k + slot``.
    """
    with kernel(name) as k:
        t = dim("T")
        index = k.arg("index", (t, slots), "int32")
        offsets = k.arg("offsets", (experts + 1,), "int32")
        order = k.arg("order", (t * slots,), "int32")
        cursor = workspace((experts,), "int32")
        with loop(experts) as e:
            store(cursor, [e], i32(0))
        with loop(t) as row, loop(slots) as slot:
            e = bind(tirx.Cast("int64", load(index, [row, slot])))
            store(cursor, [e], load(cursor, [e]) + i32(1))
        store(offsets, [0], i32(0))
        with loop(experts) as e:
            start = bind(load(offsets, [e]))
            store(offsets, [e + 1], start + load(cursor, [e]))
            store(cursor, [e], start)
        with loop(t) as row, loop(slots) as slot:
            e = bind(tirx.Cast("int64", load(index, [row, slot])))
            at = bind(load(cursor, [e]))
            store(order, [tirx.Cast("int64", at)], tirx.Cast("int32", row * slots + slot))
            store(cursor, [e], at + i32(1))
    return k.func
