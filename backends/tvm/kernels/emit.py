"""A thin layer over TVM's TIR builder: explicit vectors, fused multiply-add, structured control flow.

Kernels here are Python functions that run once, at compile time, and write statements into the PrimFunc
under construction. Python ``for`` therefore means "unrolled", ``with loop(n) as i`` means a loop in the
code. Everything that must have a fixed rounding is written with ``fma``: LLVM may contract a separate
multiply and add, and might do so in one tile shape and not in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

Expr: TypeAlias = tvm.ir.Expr
Buffer: TypeAlias = tvm.ir.Var
Index: TypeAlias = Expr | int


def i64(value: Index) -> Expr:
    """Return an int64 constant; an expression passes through."""
    return tirx.const(value, "int64") if isinstance(value, int) else value


def i32(value: int) -> Expr:
    """Return an int32 constant."""
    return tirx.const(value, "int32")


def dim(name: str) -> Expr:
    """Return a new symbolic int64 dimension."""
    return tirx.Var(name, "int64")


def lanes_of(value: Expr) -> int:
    """Return the number of lanes of an expression (1 for a scalar)."""
    return int(tvm.DataType(str(value.ty.dtype)).lanes)


def vtype(dtype: str, lanes: int) -> str:
    """Return the name of a vector type: ``vtype("float32", 8) == "float32x8"``."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def splat(value: Expr | float, lanes: int) -> Expr:
    """Return an f32 constant or a scalar expression in every lane."""
    scalar = value if isinstance(value, tvm.ir.Expr) else tirx.const(float(value), "float32")
    return scalar if lanes == 1 else T.broadcast(scalar, lanes)


def splat_int(value: int, lanes: int) -> Expr:
    """Return an int32 constant in every lane."""
    return i32(value) if lanes == 1 else T.broadcast(i32(value), lanes)


def columns(col: Index, lanes: int) -> Expr:
    """Return the index of ``lanes`` neighbouring elements that start at ``col``."""
    return i64(col) if lanes == 1 else T.ramp(i64(col), 1, lanes)


def load(buf: Buffer, index: Sequence[Index], lanes: int = 1) -> Expr:
    """Return the expression that loads ``lanes`` elements that start at ``index``."""
    head = [i64(i) for i in index[:-1]]
    return tirx.BufferLoad(buf, [*head, columns(index[-1], lanes)])


def store(buf: Buffer, index: Sequence[Index], value: Expr) -> None:
    """Write ``value`` (any number of lanes) at ``index``."""
    head = [i64(i) for i in index[:-1]]
    T.buffer_store(buf, value, [*head, columns(index[-1], lanes_of(value))])


def bind(value: Expr) -> Expr:
    """Give a value a name, so that using it twice does not compute it twice.

    The value goes through a stack slot, which the code generator turns back into a register: TVM's
    simplifier substitutes pure names by their definitions, and nested definitions then explode.
    """
    if type(value).__name__ in ("TensorLoad", "BufferLoad"):  # the class name differs between TVM versions
        return T.bind(value)
    lanes = lanes_of(value)
    slot = scratch((lanes,), str(value.ty.dtype).split("x")[0])
    store(slot, [0], value)
    return T.bind(load(slot, [0], lanes))


def prefetch(buf: Buffer, index: Sequence[Index]) -> None:
    """Ask for the cache line of an element, to be read soon and more than once."""
    place = T.address_of(tirx.BufferLoad(buf, [i64(i) for i in index]))
    T.evaluate(tirx.call_intrin("void", "tirx.prefetch", place, i32(0), i32(3), i32(1)))


def fma(a: Expr, b: Expr, c: Expr) -> Expr:
    """Return ``a * b + c`` with one rounding."""
    return tirx.call_llvm_pure_intrin(str(c.ty.dtype), "llvm.fma", a, b, c)


def select(cond: Expr, yes: Expr, no: Expr) -> Expr:
    """Return ``yes`` in the lanes where ``cond`` holds, else ``no``; both sides are evaluated."""
    return T.Select(cond, yes, no)


def fmax(a: Expr, b: Expr) -> Expr:
    """Return the lane-wise maximum; where either is NaN the result is ``b``."""
    return select(a > b, a, b)


def loop(extent: Index) -> T.frame.ForFrame:
    """Open a serial loop over ``[0, extent)`` with an int64 variable."""
    return T.serial(i64(extent))


def unroll(extent: int) -> T.frame.ForFrame:
    """Open a loop over ``[0, extent)`` that is unrolled after everything else is lowered.

    The same code as a Python ``for``, for a fraction of the compile time: TVM's passes and their cost see one copy of
    the body. Arrays in ``scratch`` may be indexed by the variable and still become registers.
    """
    return T.unroll(i64(extent))


def parallel(extent: Index) -> T.frame.ForFrame:
    """Open a loop over ``[0, extent)`` whose iterations the thread pool shares in contiguous chunks."""
    return T.parallel(i64(extent))


@contextmanager
def when(cond: Expr) -> Iterator[None]:
    """Open a block that runs if ``cond`` holds.

    The condition goes through a stack slot, or TVM's simplifier tries to prove everything inside from it.
    """
    slot = scratch((1,), "int32")
    store(slot, [0], tirx.Cast("int32", cond))
    with T.If(load(slot, [0]) != 0), T.Then():
        yield


@contextmanager
def either(cond: Expr) -> Iterator[tuple[T.frame.ThenFrame, T.frame.ElseFrame]]:
    """Open an if with both branches: ``with either(c) as (yes, no):`` then ``with yes:``, ``with no:``."""
    with T.If(cond):
        yield T.Then(), T.Else()


def scratch(shape: Sequence[int], dtype: str = "float32") -> Buffer:
    """Allocate at most 1024 bytes on the stack; unrolled uses of it become registers.

    The scope is "global": TVM keeps small constant buffers of that scope on the stack and takes every other
    one, "local" included, from the workspace pool, by a call where the buffer is declared.
    """
    return T.alloc_buffer(tuple(shape), dtype, scope="global")


def workspace(shape: Sequence[Index], dtype: str = "float32") -> Buffer:
    """Allocate a buffer from the runtime's per-thread pool, for sizes unknown or too large for the stack."""
    return T.alloc_buffer(tuple(i64(s) for s in shape), dtype, scope="global")


class Kernel:
    """A PrimFunc under construction: declares its arguments in order and holds the finished function."""

    func: tirx.PrimFunc

    def arg(self, name: str, shape: Sequence[Index], dtype: str = "float32") -> Buffer:
        """Declare the next argument, a dense row-major tensor."""
        handle = T.arg(name, T.handle())
        # align=4: inputs may be views into a file, so no alignment beyond the element is assumed.
        return T.match_buffer(handle, tuple(i64(s) for s in shape), dtype, align=4)

    def scalar(self, name: str, dtype: str = "int64") -> Expr:
        """Declare the next argument, a scalar."""
        return T.arg(name, tirx.Var(name, dtype))


@contextmanager
def kernel(name: str) -> Iterator[Kernel]:
    """Open a PrimFunc; when the block ends, ``Kernel.func`` holds it."""
    built = Kernel()
    with IRBuilder() as builder:
        with T.prim_func():
            T.func_name(name)
            T.func_attr({"global_symbol": name, "tirx.noalias": True})
            yield built
        built.func = builder.get()
