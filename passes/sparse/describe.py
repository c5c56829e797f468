"""What each head of a packed graph does: method and options, read from its attention nodes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fretsaw.ir import Graph, Node
from fretsaw.ir.errors import FretsawError, UsageError
from fretsaw.passes.kit.options import Plain, fill, parse_assignments
from fretsaw.passes.sparse import methods as _methods  # noqa: F401  what options may name
from fretsaw.passes.sparse.options import Sparse

ATTENTION = ("cached_attention", "block_attention")
PART = re.compile(r"(?:(?P<heads>[0-9,-]+) )?(?P<name>\w+)(?::(?P<options>.*))?")


@dataclass(frozen=True)
class HeadMethod:
    """One head of one layer.

    Args:
        method: Its name; ``dense`` for attention without lists, ``lists`` where nothing says what made them.
        options: The method's own, by name.
    """

    layer: int
    head: int
    method: str
    options: dict[str, Plain]

    def to_json(self) -> dict[str, object]:
        return {"layer": self.layer, "head": self.head, "method": self.method, "options": self.options}


def describe_heads(graph: Graph) -> list[HeadMethod]:
    """Every head of every attention over a cache, by layer and head.

    Raises:
        FretsawError: a node's ``method`` is no text that the pass writes.
    """
    found = [h for node in graph.nodes if node.op in ATTENTION for h in _of_node(node)]
    return sorted(found, key=lambda h: (h.layer, h.head))


def _of_node(node: Node) -> list[HeadMethod]:
    heads, layer = node["q"].tensor.shape[1], node.int_attr("layer")
    assert isinstance(heads, int)
    if node.op == "cached_attention":
        return [HeadMethod(layer, h, "dense", {}) for h in range(heads)]
    text = str(node.attr("method"))
    if not text:
        return [HeadMethod(layer, h, "lists", {}) for h in range(heads)]
    return [HeadMethod(layer, h, name, own) for of, name, own in parse_said(text, heads) for h in of]


def parse_said(text: str, heads: int) -> list[tuple[tuple[int, ...], str, dict[str, Plain]]]:
    """Heads, method and options from what ``heads.said`` wrote.

    Raises:
        FretsawError: it is another text, or not every head is named once.
    """
    out: list[tuple[tuple[int, ...], str, dict[str, Plain]]] = []
    for part in text.split("; "):
        match = PART.fullmatch(part)
        if match is None:
            raise FretsawError(f'"{part}" says no method of sparse attention')
        of = _numbers(match["heads"]) if match["heads"] else tuple(range(heads))
        out.append((of, match["name"], _typed(match["name"], match["options"] or "")))
    if sorted(h for of, _, _ in out for h in of) != list(range(heads)):
        raise FretsawError(f'"{text}" does not name each of {heads} heads once')
    return out


def _typed(name: str, text: str) -> dict[str, Plain]:
    given = parse_assignments(text) if text else {}
    try:
        options = fill("sparse_attention", Sparse(), {"method": name, **given})
    except UsageError as error:
        raise FretsawError(f"a method of sparse attention is unknown here: {error.what}") from None
    assert isinstance(options, Sparse)
    return options.own()


def _numbers(text: str) -> tuple[int, ...]:
    ends = [piece.split("-") for piece in text.split(",")]
    return tuple(n for pair in ends for n in range(int(pair[0]), int(pair[-1]) + 1))


def whole_prompts(graph: Graph) -> bool:
    """Whether some attention needs prompts whole in a step."""
    return any(n.op == "block_attention" and bool(n.attr("whole_prompt")) for n in graph.nodes)


def methods_of(heads: Sequence[HeadMethod]) -> dict[str, int]:
    """How many heads have each method."""
    names = [h.method for h in heads]
    return {name: names.count(name) for name in dict.fromkeys(names)}
