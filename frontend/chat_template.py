"""Refuse, at compile time and by name, a chat template that the runtime's interpreter could not render.

The table is the compiler's copy of `runtime/src/chat/features.h`; a test compares the two. The walk is over
Jinja's own syntax tree, so what passes here is valid Jinja.
"""

from __future__ import annotations

import jinja2
from jinja2 import nodes
from transformers.utils.chat_template_utils import _compile_jinja_template

from fretsaw.ir.errors import CaptureError

SUPPORTED: dict[str, tuple[str, ...]] = {
    "statements": ("if", "for", "set", "macro", "filter", "generation", "break", "continue"),
    "filters": (
        "trim", "tojson", "length", "count", "upper", "lower", "capitalize", "title", "default", "d", "join", "items",
        "selectattr", "rejectattr", "select", "reject", "map", "first", "last", "list", "string", "int", "float",
        "replace", "reverse", "unique", "dictsort", "safe", "indent", "abs",
    ),
    "tests": (
        "defined", "undefined", "none", "string", "mapping", "iterable", "sequence", "number", "integer", "float",
        "boolean", "true", "false", "odd", "even", "divisibleby", "in", "eq", "equalto", "ne", "lt", "le", "gt", "ge",
        "lower", "upper", "callable",
    ),
    "methods": (
        "strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "startswith", "endswith", "upper", "lower",
        "title", "capitalize", "replace", "find", "rfind", "count", "join", "removeprefix", "removesuffix", "isdigit",
        "get", "items", "keys", "values",
    ),
    "functions": ("namespace", "dict", "range", "raise_exception", "strftime_now"),
}  # fmt: skip
# Jinja's own statement nodes that have no counterpart in the runtime.
REFUSED: dict[type[nodes.Node], str] = {
    nodes.Include: "include", nodes.Import: "import", nodes.FromImport: "from import", nodes.Extends: "extends",
    nodes.Block: "block", nodes.With: "with", nodes.ScopedEvalContextModifier: "autoescape",
    nodes.Pow: "the operator **", nodes.ExprStmt: "do",
}  # fmt: skip


def check_chat_template(source: str) -> None:
    """Raise unless the runtime can interpret every construct of this template.

    Args:
        source: the template's text.

    Raises:
        CaptureError: a syntax error or an unsupported construct; names it and its line.
    """
    try:
        environment = _compile_jinja_template("").environment
        tree = environment.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise CaptureError(
            f"chat template: {error.message}",
            where=f"chat template, line {error.lineno}",
            hint="fix the template",
        ) from error
    _walk(tree)


def _refuse(what: str, node: nodes.Node, kind: str | None = None) -> None:
    hint = f"supported {kind}: {', '.join(SUPPORTED[kind])}" if kind else "write the template without it"
    raise CaptureError(f"chat template: {what} is not supported", where=f"chat template, line {node.lineno}", hint=hint)


def _walk(node: nodes.Node) -> None:
    for child in node.iter_child_nodes():
        _check(child)
        _walk(child)


def _check(node: nodes.Node) -> None:
    if type(node) in REFUSED:
        _refuse(REFUSED[type(node)], node)
    if isinstance(node, nodes.Filter) and node.name not in SUPPORTED["filters"]:
        _refuse(f"the filter '{node.name}'", node, "filters")
    if isinstance(node, nodes.Test) and node.name not in SUPPORTED["tests"]:
        _refuse(f"the test '{node.name}'", node, "tests")
    if isinstance(node, nodes.For) and node.recursive:
        _refuse("a recursive loop", node)
    if isinstance(node, nodes.Compare) and len(node.ops) > 1:
        _refuse("a chained comparison", node)
    if isinstance(node, nodes.CallBlock) and not _is_generation(node):
        _refuse("the statement 'call'", node, "statements")
    if isinstance(node, nodes.AssignBlock) and node.filter is not None:
        _refuse("a filter on a set block", node)
    if isinstance(node, nodes.Call):
        _check_call(node)


def _is_generation(node: nodes.CallBlock) -> bool:
    # transformers' extension for {% generation %} turns it into a call of its own method.
    return isinstance(node.call.node, nodes.ExtensionAttribute)


def _check_call(node: nodes.Call) -> None:
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        _refuse("an argument with *", node)
    if isinstance(node.node, nodes.Getattr) and node.node.attr not in SUPPORTED["methods"]:
        _refuse(f"the method '{node.node.attr}'", node, "methods")
