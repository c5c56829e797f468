"""The table of import rules and what a rule sees.

A rule handles one ATen op: it reads arguments, emits IR nodes and returns the value (or values) of the ATen
node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import fx

from fretsaw.frontend.import_aten.dims import Symbols
from fretsaw.frontend.import_aten.loc import location
from fretsaw.ir import Attr, Const, DimLike, DType, GraphBuilder, Loc, Shape, TensorType, Value
from fretsaw.ir.errors import CaptureError, VerifyError
from fretsaw.ir.types import numpy_dtype

Result = Value | tuple[Value, ...]
Rule = Callable[["Context"], Result]
RULES: dict[str, Rule] = {}

DTYPES: Mapping[torch.dtype, DType] = {
    torch.float64: "f64", torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16",
    torch.int64: "i64", torch.int32: "i32", torch.int8: "i8", torch.uint8: "u8", torch.bool: "bool",
}  # fmt: skip


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register an import rule for ATen ops by their full names, e.g. ``aten.add.Tensor``."""

    def register(fn: Rule) -> Rule:
        for name in names:
            assert name not in RULES, name
            RULES[name] = fn
        return fn

    return register


@dataclass
class State:
    """What the import of one program carries from node to node."""

    builder: GraphBuilder
    symbols: Symbols
    values: dict[fx.Node, Result] = field(default_factory=dict)
    scalars: dict[tuple[DType, str], Value] = field(default_factory=dict)


@dataclass
class Context:
    """One ATen node during its import."""

    state: State
    node: fx.Node
    name: str
    arguments: Mapping[str, object]  # by schema name, defaults filled in

    @property
    def loc(self) -> Loc:
        return location(self.node)

    def fail(self, what: str) -> CaptureError:
        """An error at this node: ATen op, module path, source line."""
        loc = self.loc
        where = "   ".join(filter(None, [loc.module, f"({loc.source})" if loc.source else ""]))
        return CaptureError(f"{self.name}: {what}", where=where or self.node.name)

    def arg(self, name: str) -> object:
        """A raw argument; symbolic sizes come as dims."""
        return self.state.symbols.resolve(self.arguments.get(name))

    def value(self, name: str) -> Value:
        """A tensor argument."""
        return self.tensor(self.arguments.get(name))

    def tensor(self, argument: object) -> Value:
        """The value of an fx node."""
        found = self.state.values.get(argument) if isinstance(argument, fx.Node) else None
        if not isinstance(found, Value):
            raise self.fail(f"expected a tensor, got {argument}")
        return found

    def optional(self, name: str) -> Value | None:
        return None if self.arguments.get(name) is None else self.value(name)

    def integer(self, name: str) -> int:
        value = self.arg(name)
        if not isinstance(value, int):
            raise self.fail(f"{name} must be a fixed integer, is {value}")
        return value

    def axis(self, name: str = "dim", rank: int | None = None) -> int:
        """An axis argument counted from the front."""
        axis = self.integer(name)
        return axis + (self.value("self").tensor.rank if rank is None else rank) if axis < 0 else axis

    def fixed_false(self, *names: str) -> None:
        """Refuse arguments that the rule does not implement unless they are absent or false."""
        for name in names:
            if self.arguments.get(name) not in (None, False, 0):
                raise self.fail(f"argument {name} is not supported")

    @property
    def shape(self) -> Shape:
        """Shape of the result, read off the trace."""
        return self.state.symbols.shape(self.node.meta["val"].shape)

    @property
    def dtype(self) -> DType:
        return self.dtype_of(self.node.meta["val"].dtype)

    def dtype_of(self, dtype: torch.dtype) -> DType:
        if dtype not in DTYPES:
            raise self.fail(f"dtype {dtype} is not supported")
        return DTYPES[dtype]

    def emit(self, op: str, *operands: Value, **attrs: Attr) -> Value:
        """Append an IR node."""
        try:
            return self.emit_all(op, operands, **attrs)[0]
        except VerifyError as error:
            raise self.fail(f"cannot become {op}: {error.what}") from None

    def emit_all(self, op: str, operands: Sequence[Value], **attrs: Attr) -> tuple[Value, ...]:
        node = self.state.builder.emit_node(op, operands, attrs, loc=self.loc)
        return node.results

    def scalar(self, number: bool | int | float, dtype: DType) -> Value:
        """A constant of rank 0; equal ones are shared."""
        key = (dtype, repr(number))
        if key not in self.state.scalars:
            array = np.asarray(number, numpy_dtype(dtype))
            self.state.scalars[key] = self.state.builder.const("scalar", Const.of(array, dtype))
        return self.state.scalars[key]

    def torch_dtype(self, name: str) -> torch.dtype:
        """The traced dtype of a tensor argument."""
        node = self.arguments.get(name)
        assert isinstance(node, fx.Node)
        dtype = node.meta["val"].dtype
        assert isinstance(dtype, torch.dtype)
        return dtype

    def number(self, name: str) -> bool | int | float:
        value = self.arguments.get(name)
        if not isinstance(value, (bool, int, float)):
            raise self.fail(f"{name} must be a number, is {value}")
        return value

    def cast(self, value: Value, dtype: DType) -> Value:
        return value if value.tensor.dtype == dtype else self.emit("cast", value, dtype=dtype)

    def reshape(self, value: Value, shape: Shape) -> Value:
        return value if value.tensor.shape == shape else self.emit("reshape", value, shape=shape)

    def slice(self, value: Value, axis: int, start: DimLike, length: DimLike, step: int = 1) -> Value:
        """``length`` elements along ``axis`` from ``start``."""
        if length == value.tensor.shape[axis] and start == 0:
            return value
        end = start + length if step == 1 else start + (length - 1) * step + 1
        return self.emit("slice", value, axis=axis, start=start, end=end, step=step)

    def full(self, number: bool | int | float, dtype: DType, shape: Shape) -> Value:
        kind = {"bool": bool}.get(dtype, float if dtype.startswith(("f", "bf")) else int)
        return self.emit("full", dtype=dtype, shape=shape, value=kind(number))


def tensor_type(context: State, val: torch.Tensor) -> TensorType:
    """IR type of a traced tensor."""
    return TensorType(DTYPES[val.dtype], context.symbols.shape(val.shape))
