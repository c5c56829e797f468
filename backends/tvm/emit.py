"""From plans to one Relax module for one instruction set: a function per entry and a PrimFunc per kernel spec."""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax, tirx

from fretsaw.backends.tvm.codegen.objects import kernel_of
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.kv_pages import TVM_TYPE
from fretsaw.backends.tvm.kv_storage import KvType, page_shapes
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.backends.tvm.steps import CacheSlot, KernelSpec, Launch, Plan, Tensor
from fretsaw.ir import Dim, DimLike, TensorType, Value, sym
from fretsaw.ir.kv import BLOCK

_TVM_DTYPE = {"f32": "float32", "f16": "float16", "bf16": "uint16", "i32": "int32", "i64": "int64", "bool": "int8"}


OFFSETS = "B1"  # the size of cu


class _Dims:
    """Symbols of the program as TIR variables; a polynomial becomes an expression over them."""

    def __init__(self) -> None:
        self._vars: dict[str, tirx.Var] = {}
        self._known: dict[str, tvm.ir.Expr] = {}  # symbols that are no variables of the program

    def var(self, name: str) -> tirx.Var:
        return self._vars.setdefault(name, tirx.Var(name, "int64"))

    def blocks(self) -> None:
        """Symbols of arrays over blocks (ir/kv.py): QB, and KB, which is the width of the page table."""
        self._known["QB"] = self.var("T") // BLOCK + self.var("B") * 2
        self._known["KB"] = self.var("M")

    def offsets(self, kind: TensorType) -> relax.TensorType | None:
        """The type of offsets [B + 1], None for any other: their size is a variable, and B is one less."""
        (dim, *rest) = kind.shape
        symbols = dim.symbols if isinstance(dim, Dim) else ()
        if rest or len(symbols) != 1 or dim != sym(name := next(iter(symbols))) + 1:
            return None
        size = self.var(OFFSETS)
        self._known[name] = size - 1
        return relax.TensorType([size], _TVM_DTYPE[kind.dtype])

    def expr(self, dim: DimLike) -> tvm.ir.Expr:
        if not isinstance(dim, Dim):
            return tirx.IntImm("int64", dim)
        total: tvm.ir.Expr | None = None
        for monomial, coefficient in dim.terms:
            term: tvm.ir.Expr = tirx.IntImm("int64", coefficient)
            for name in monomial:
                factor = self._known.get(name, self.var(name))
                term = factor if coefficient == 1 and monomial == (name,) else term * factor
            total = term if total is None else total + term
        assert total is not None
        return total

    def type(self, kind: TensorType) -> relax.TensorType:
        return relax.TensorType([self.expr(d) for d in kind.shape], _TVM_DTYPE[kind.dtype])


def cache_types(kv: Mapping[str, int], storage: KvType, dims: _Dims) -> dict[str, relax.TensorType]:
    """Types of the runtime's cache arguments, in the order of the step's parameters (docs/artifact.md)."""
    b, m, n, lays = (dims.var(name) for name in ("B", "M", "N", "L"))
    heads = kv["kv_heads"]
    key, value = page_shapes(kv["key_size"], kv["value_size"], kv["page_tokens"], storage)
    types = {
        "cu": relax.TensorType([dims.var("B1")], "int32"),
        "lens": relax.TensorType([lays, b, heads], "int32"),
        "table": relax.TensorType([lays, b, heads, m], "int32"),
        "k_pages": relax.TensorType([n, *key], TVM_TYPE[storage]),
        "v_pages": relax.TensorType([n, *value], TVM_TYPE[storage]),
    }
    if kv.get("key_bounds"):
        types["key_bounds"] = relax.TensorType([n, 2 * kv["key_size"]], "float32")
    return types


def emit(
    entries: Mapping[str, Plan], kv: Mapping[str, int], storage: KvType, options: TvmOptions, isa: Isa
) -> tvm.IRModule:
    """Return the module: a function for each entry, with parameters as docs/artifact.md lists them.

    Args:
        entries: Plans by the name of their function; they read the same tensors.
    """
    builder = relax.BlockBuilder()
    functions: dict[KernelSpec, tvm.ir.GlobalVar] = {}
    for name, plan in entries.items():
        if plan.cached:
            _emit_step(builder, functions, name, plan, kv, storage, options, isa)
        else:
            _emit_encoder(builder, functions, name, plan, options, isa)
    return builder.get()


def _emit_step(
    builder: relax.BlockBuilder, functions: dict[KernelSpec, tvm.ir.GlobalVar], name: str, plan: Plan,
    kv: Mapping[str, int], storage: KvType, options: TvmOptions, isa: Isa,
) -> None:  # fmt: skip
    """A function of a decoder."""
    dims = _Dims()
    dims.blocks()
    tokens, positions, rows = (relax.Var(v.name, dims.type(v.tensor)) for v in plan.inputs)
    cache = {name: relax.Var(name, kind) for name, kind in cache_types(kv, storage, dims).items()}
    weights = {t.name: relax.Var(_identifier(t.name), dims.type(t.type)) for t in plan.tensors}
    params = [
        tokens,
        positions,
        cache["cu"],
        rows,
        cache["lens"],
        cache["table"],
        cache["k_pages"],
        cache["v_pages"],
    ]
    params += [cache["key_bounds"]] if "key_bounds" in cache else []
    params += weights.values()
    env: dict[Value, relax.Expr] = dict(zip(plan.inputs, (tokens, positions, rows), strict=True))
    limits = {"T": options.chunk_tokens, "R": options.chunk_tokens}
    emitter = _Emitter(builder, functions, dims, env, cache, weights, isa)
    emitter.body(name, params, plan, limits)


def _emit_encoder(
    builder: relax.BlockBuilder, functions: dict[KernelSpec, tvm.ir.GlobalVar], name: str, plan: Plan,
    options: TvmOptions, isa: Isa,
) -> None:  # fmt: skip
    """A function of an encoder: the plan's inputs in order, then the weights."""
    dims = _Dims()
    params: dict[Value, relax.Expr] = {}
    for value in plan.inputs:
        params[value] = relax.Var(value.name, dims.offsets(value.tensor) or dims.type(value.tensor))
    weights = {t.name: relax.Var(_identifier(t.name), dims.type(t.type)) for t in plan.tensors}
    limits = {"T": options.chunk_tokens, OFFSETS: options.chunk_tokens + 1}
    emitter = _Emitter(builder, functions, dims, dict(params), {}, weights, isa)
    emitter.body(name, [*params.values(), *weights.values()], plan, limits)


class _Emitter:
    def __init__(
        self, builder: relax.BlockBuilder, functions: dict[KernelSpec, tvm.ir.GlobalVar], dims: _Dims,
        env: dict[Value, relax.Expr], cache: dict[str, relax.Expr], weights: dict[str, relax.Var], isa: Isa,
    ) -> None:  # fmt: skip
        self.builder, self.dims, self.env, self.cache = builder, dims, env, cache
        self.weights, self.isa = weights, isa
        self.functions = functions  # by spec, of all entries

    def body(self, name: str, params: list[relax.Var], plan: Plan, limits: Mapping[str, int]) -> None:
        """The function ``name``: every launch of the plan, then its result."""
        builder = self.builder
        with builder.function(name, params, attrs={"tir_var_upper_bound": limits, "relax.force_pure": True}):
            with builder.dataflow():
                for launch in plan.launches:
                    self.launch(launch, plan)
                out = builder.emit_output(self.value(plan.outputs[0], plan))
            builder.emit_func_output(out)

    def value(self, value: Value, plan: Plan) -> relax.Expr:
        """The Relax value, through reshapes that only rename memory."""
        if value not in self.env:
            source = self.value(plan.aliases[value], plan)
            shape = relax.ShapeExpr([self.dims.expr(d) for d in value.tensor.shape])
            self.env[value] = self.builder.emit(relax.op.reshape(source, shape))
        return self.env[value]

    def function(self, launch: Launch) -> tvm.ir.GlobalVar:
        if launch.spec not in self.functions:
            kernel = kernel_of(launch.spec, self.isa)
            self.functions[launch.spec] = self.builder.add_func(kernel.func, kernel.name)
        return self.functions[launch.spec]

    def launch(self, launch: Launch, plan: Plan) -> None:
        args: list[relax.Expr] = []
        for arg in launch.inputs:
            if isinstance(arg, Tensor):
                args.append(self.weights[arg.name])
            elif isinstance(arg, CacheSlot):
                args.append(self.cache[arg.name])
            else:
                args.append(self.value(arg, plan))
        scalars = [relax.prim_value(s) for s in launch.scalars]
        out = [self.dims.type(v.tensor) for v in launch.outputs]
        symbol = self.function(launch)
        if not launch.writes:
            parts = self.parts(relax.call_tir(symbol, [*args, *scalars], out if len(out) > 1 else out[0]), len(out))
        else:
            names = [a.name if isinstance(a, CacheSlot) else "" for a in launch.inputs]
            places = [names.index(w) for w in launch.writes]
            kinds = [self.cache[w].ty for w in launch.writes] + out
            call = relax.op.call_tir_inplace(symbol, [*args, *scalars], [*places, *[-1] * len(out)], kinds)
            items = self.parts(call, len(kinds))
            self.cache.update(zip(launch.writes, items, strict=False))
            parts = items[len(launch.writes) :]
        self.env.update(zip(launch.outputs, parts, strict=True))

    def parts(self, call: relax.Expr, count: int) -> list[relax.Expr]:
        """The results of a call, which is a tuple of them if there are several."""
        result = self.builder.emit(call)
        return [result] if count == 1 else [self.builder.emit(relax.TupleGetItem(result, i)) for i in range(count)]


def _identifier(name: str) -> str:
    return "w_" + "".join(c if c.isalnum() else "_" for c in name)
