"""The driver: walk an exported program, drop what nothing reads, apply one rule per ATen node."""

from __future__ import annotations

import operator
from collections.abc import Mapping

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from fretsaw.frontend.import_aten import elementwise, fused, linear, reduce, shape  # noqa: F401  fills the table
from fretsaw.frontend.import_aten.dims import Symbols
from fretsaw.frontend.import_aten.table import RULES, Context, Result, State, tensor_type
from fretsaw.ir import Const, Graph, GraphBuilder, Value

MAX_BATCH = 1 << 20  # sequences
DIMS = ("B", "S")


def import_program(
    program: ExportedProgram, consts: Mapping[str, Const], name: str, context: int, output: str
) -> Graph:
    """The IR of an exported program with inputs [B, S] and one output.

    Args:
        consts: Data of parameters and buffers by placeholder name; ``Const.source`` or the name in the trace
            names the constant.
        context: Upper bound of S in tokens.
        output: Name of the output value.

    Raises:
        CaptureError: an ATen op has no rule, or is used in a way its rule does not know.
    """
    graph = program.graph
    outputs = _user_outputs(program)
    live = _live(graph, outputs)
    inputs = {s.arg.name for s in program.graph_signature.input_specs if s.kind == InputKind.USER_INPUT}
    paths = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}
    first = next(n for n in graph.nodes if n.op == "placeholder" and n.name in inputs)
    symbols = Symbols.of_input(first.meta["val"].shape, DIMS)
    state = State(GraphBuilder(name, {"B": (1, MAX_BATCH), "S": (1, context)}), symbols)
    shared: dict[int, Value] = {}  # tied parameters share one constant object, and so one value
    for node in graph.nodes:
        if node.op == "placeholder" and node.name in inputs:
            state.values[node] = state.builder.input(node.name, tensor_type(state, node.meta["val"]))
        elif node.op == "placeholder" and node in live:
            const = consts[node.name]
            if id(const) not in shared:
                path = paths.get(node.name, node.name).removeprefix("m.")
                shared[id(const)] = state.builder.const(path, const)
            state.values[node] = shared[id(const)]
        elif node.op == "call_function" and node in live:
            result = _apply(state, node)
            if result is not None:
                state.values[node] = result
                if _mutates(node):
                    state.values[_mutated(node)] = result
    return _finish(state, outputs, output)


def _finish(state: State, outputs: list[fx.Node], name: str) -> Graph:
    values = [state.values[n] for n in outputs]
    (value,) = values
    assert isinstance(value, Value)
    graph = state.builder.finish([value])
    if value.name == name or any(v.name == name for v in graph.values()):
        return graph
    return _rename(graph, value, Value(name, value.type))


def _rename(graph: Graph, old: Value, new: Value) -> Graph:
    """``graph`` with one result called otherwise."""
    from dataclasses import replace

    def swap(values: tuple[Value, ...]) -> tuple[Value, ...]:
        return tuple(new if v == old else v for v in values)

    nodes = tuple(replace(n, operands=swap(n.operands), results=swap(n.results)) for n in graph.nodes)
    return replace(graph, nodes=nodes, outputs=swap(graph.outputs))


def _user_outputs(program: ExportedProgram) -> list[fx.Node]:
    names = [s.arg.name for s in program.graph_signature.output_specs if s.kind == OutputKind.USER_OUTPUT]
    by_name = {n.name: n for n in program.graph.nodes}
    return [by_name[n] for n in names]


def _live(graph: fx.Graph, outputs: list[fx.Node]) -> set[fx.Node]:
    """Nodes that the outputs need; an in-place update is needed when its target is read later."""
    live = set(outputs)
    for node in reversed(list(graph.nodes)):
        if node in live or (_mutates(node) and _mutated(node) in live):
            live.add(node)
            live.update(node.all_input_nodes)
    return live


def _mutates(node: fx.Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _mutated(node: fx.Node) -> fx.Node:
    target = node.args[0]
    assert isinstance(target, fx.Node)
    return target


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
    if _mutates(node):
        _check_in_place(context)
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


def _check_in_place(context: Context) -> None:
    """An update in place may be read as a new value only when nothing else sees the old memory."""
    target = _mutated(context.node)
    views = [n for n in (target, *target.users) if _is_view(n) and n is not context.node]
    if target.op != "call_function" or views:
        raise context.fail("an update in place of memory that others may see is not supported")


def _is_view(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return False
    return any(r.alias_info is not None for r in target._schema.returns)
