"""The driver: walk an exported program, drop what nothing reads, apply one rule per ATen node."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from fretsaw.frontend.import_aten import elementwise, fused, linear, masks, reduce, shape  # noqa: F401  fills the table
from fretsaw.frontend.import_aten.buffers import join_filled_buffers
from fretsaw.frontend.import_aten.dims import Symbols
from fretsaw.frontend.import_aten.inplace import make_functional
from fretsaw.frontend.import_aten.table import RULES, Context, Result, State, tensor_type
from fretsaw.ir import Const, Graph, GraphBuilder, Value

DIMS = ("B", "S")


def import_program(
    program: ExportedProgram, consts: Mapping[str, Const], name: str, limits: tuple[int, int], output: str
) -> Graph:
    """The IR of an exported program with inputs [B, S] and one output.

    Nodes come in the order in which the output needs them, not in the tracer's: transformers walks over
    sets, so the trace's order differs from run to run, and the same checkpoint must give the same text.

    Args:
        consts: Data of parameters and buffers by placeholder name.
        limits: Upper bounds of B in sequences and of S in tokens.
        output: Name of the output value.

    Raises:
        CaptureError: an ATen op has no rule, or is used in a way its rule does not know.
    """
    graph = program.graph
    names = [s.arg.name for s in program.graph_signature.input_specs if s.kind == InputKind.USER_INPUT]
    inputs = {n.name: n for n in graph.nodes if n.op == "placeholder" and n.name in names}
    symbols = Symbols.of_input(inputs[names[0]].meta["val"].shape, DIMS)
    builder = GraphBuilder(name, {n: (1, limit) for n, limit in zip(DIMS, limits, strict=True)})
    state = State(builder, symbols)
    join_filled_buffers(graph)
    make_functional(graph, lambda node, what: Context(state, node, str(node.target), {}).fail(what))
    for key in names:
        state.values[inputs[key]] = builder.input(key, tensor_type(state, inputs[key].meta["val"]))
    (out,) = _user_outputs(program)
    builder.fresh(output)
    load = _Loader(program, consts, state)
    for node in _needed(out):
        if node.op == "placeholder" and node not in state.values:
            state.values[node] = load(node)
        elif node.op == "call_function":
            result = _apply(state, node)
            if result is not None:
                state.values[node] = result
    value = state.values[out]
    assert isinstance(value, Value)
    return _rename(builder.finish([value]), value, Value(output, value.type))


class _Loader:
    """Constants of placeholders; tied parameters share one constant object, and so one value."""

    def __init__(self, program: ExportedProgram, consts: Mapping[str, Const], state: State) -> None:
        signature = program.graph_signature
        self._paths = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._consts, self._builder = consts, state.builder
        self._shared: dict[int, Value] = {}

    def __call__(self, node: fx.Node) -> Value:
        const = self._consts[node.name]
        if id(const) not in self._shared:
            path = self._paths.get(node.name, node.name).removeprefix("m.")
            self._shared[id(const)] = self._builder.const(path, const)
        return self._shared[id(const)]


def _needed(out: fx.Node) -> list[fx.Node]:
    """Nodes that ``out`` needs, arguments first, in the order of the arguments."""
    done: dict[fx.Node, None] = {}
    stack = [(out, False)]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready:
            done[node] = None
        else:
            stack.append((node, True))
            stack.extend((n, False) for n in reversed(node.all_input_nodes))
    return list(done)


def _rename(graph: Graph, old: Value, new: Value) -> Graph:
    """``graph`` with one result called otherwise."""

    def swap(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(new if v == old else v for v in values)

    nodes = tuple(
        replace(n, operands=swap(n.operands), results=swap(n.results)) if old in (*n.operands, *n.results) else n
        for n in graph.nodes
    )
    return replace(graph, nodes=nodes, outputs=swap(graph.outputs))


def _user_outputs(program: ExportedProgram) -> list[fx.Node]:
    """What the traced module returns, as the graph has it now: rewrites may have replaced the traced node."""
    (values,) = next(n for n in reversed(program.graph.nodes) if n.op == "output").args
    assert isinstance(values, (list, tuple))
    kinds = [s.kind for s in program.graph_signature.output_specs]
    return [v for v, k in zip(values, kinds, strict=True) if k == OutputKind.USER_OUTPUT and isinstance(v, fx.Node)]


def _apply(state: State, node: fx.Node) -> Result | None:
    """The value of one ATen node; None for sizes, which are read off the trace."""
    if isinstance(node.meta.get("val"), (torch.SymInt, int, torch.SymBool, bool)):
        return None
    if node.target is operator.getitem:
        source, index = node.args
        assert isinstance(source, fx.Node) and isinstance(index, int)
        found = state.values[source]
        return found[index] if isinstance(found, tuple) else found
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        raise Context(state, node, str(target), {}).fail("there is no import rule for this call")
    context = Context(state, node, str(target), _arguments(node, target))
    rule = RULES.get(str(target)) or RULES.get(str(target).replace("_.", ".", 1))
    if rule is None:
        raise context.fail("there is no import rule for this op")
    return rule(context)


def _arguments(node: fx.Node, target: torch._ops.OpOverload) -> dict[str, object]:
    """Arguments by schema name, defaults filled in."""
    out: dict[str, object] = {}
    for i, argument in enumerate(target._schema.arguments):
        if i < len(node.args) and not argument.kwarg_only:
            out[argument.name] = node.args[i]
        elif argument.name in node.kwargs:
            out[argument.name] = node.kwargs[argument.name]
        else:
            out[argument.name] = argument.default_value if argument.has_default_value() else None
    return out
