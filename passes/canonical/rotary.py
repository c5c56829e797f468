"""Analysis: is a value the cosine or sine of positions times constant frequencies, and of which?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fretsaw.ir import DimLike, Graph, Node, Value
from fretsaw.ir.types import INTS
from fretsaw.passes.kit.match import either, scalar, squeezed


@dataclass(frozen=True)
class Angles:
    """``fn(positions[...] * inv_freq[r]) * scale``, laid out as (*positions, width) with axes of length one anywhere.

    Args:
        fn: ``cos`` or ``sin``.
        positions: Integer tensor of positions.
        inv_freq: Constant with R elements.
        doubled: The R angles occur twice, one half after the other.
    """

    fn: str
    positions: Value
    inv_freq: Value
    scale: float = 1.0
    doubled: bool = False

    def same_but_fn(self, other: Angles) -> bool:
        return replace(self, fn=other.fn) == other


def trace_angles(g: Graph, value: Value) -> Angles | str:
    """What ``value`` is, or the reason why it is no such cosine or sine."""
    scale, node, halved = 1.0, _through(g, value), False
    while node is not None and node.op not in ("cos", "sin"):
        if node.op == "slice" and not halved and _is_half(node):
            halved, node = True, _through(g, node["x"])
            continue
        if node.op != "mul":
            return f"{node.op} between the rotation and its cos or sin"
        factors = [(x, scalar(g, s)) for x, s in either(node)]
        x, factor = next(((x, s) for x, s in factors if s is not None), (node["a"], None))
        if factor is None:
            return "cos or sin is multiplied by something that is not a constant"
        scale, node = scale * factor, _through(g, x)
    if node is None:
        return "does not come from cos or sin"
    angle, doubled = _single(g, node["x"])
    found = _product(g, angle)
    if found is None:
        return "the angle is not positions times a constant"
    positions, inv_freq = found
    if halved and not doubled:
        return "one half of its angles is cut off"
    doubled = doubled and not halved
    width = inv_freq.tensor.numel
    assert isinstance(width, int)
    want = (*squeezed(positions.tensor), 2 * width if doubled else width)
    if squeezed(value.tensor) != want:
        return f"its axes are {_text(squeezed(value.tensor))}, not positions and frequencies {_text(want)}"
    if len(set(want)) < len(want):
        return "two axes have one length, so their order cannot be told"
    return Angles(node.op, positions, inv_freq, scale, doubled)


def _text(dims: tuple[DimLike, ...]) -> str:
    return f"[{', '.join(map(str, dims))}]"


def _through(g: Graph, value: Value) -> Node | None:
    """The producer, looking through reshapes and expands that add axes of length one, and transposes."""
    node = g.producer(value)
    while node is not None and _moves_nothing(node):
        value = node["x"]
        node = g.producer(value)
    return node


def _moves_nothing(node: Node) -> bool:
    if node.op in ("reshape", "expand"):
        return squeezed(node["x"].tensor) == squeezed(node.out.tensor)
    return node.op == "transpose"


def _is_half(node: Node) -> bool:
    """A slice that takes one half of the last axis."""
    size, start, end = node["x"].tensor.shape[-1], node.attr("start"), node.attr("end")
    if node.attr("axis") != node.out.tensor.rank - 1 or node.attr("step") != 1 or not isinstance(size, int):
        return False
    return (start, end) in ((0, size // 2), (size // 2, size)) and size % 2 == 0


def _strip(g: Graph, value: Value) -> Value:
    node, dtype = g.producer(value), value.tensor.dtype
    while node is not None and (_moves_nothing(node) or node.op in ("cast", "expand")):
        if node.op == "cast" and node.out.tensor.dtype != dtype:
            break  # a detour through a narrower type rounds
        value = node["x"]
        node = g.producer(value)
    return value


def _single(g: Graph, value: Value) -> tuple[Value, bool]:
    """The angle without its second copy."""
    node = _through(g, value)
    last = value.tensor.rank - 1
    if node is not None and node.op == "concat" and node.attr("axis") == last:
        first, *rest = node.operands
        if rest == [first]:
            return first, True
    return value, False


def _product(g: Graph, value: Value) -> tuple[Value, Value] | None:
    node = _through(g, value)
    if node is None or node.op not in ("mul", "matmul"):
        return None
    for positions, freq in either(node):
        p, f = _strip(g, positions), _strip(g, freq)  # to integers and to a constant
        if f in g.consts and len(squeezed(f.tensor)) == 1 and p not in g.consts and p.tensor.dtype in INTS:
            return p, f
    return None


def first_rotation(g: Graph, value: Value) -> Node | None:
    """A cos or sin that ``value`` comes from without passing a projection, an embedding or another attention."""
    seen: set[Value] = set()
    todo = [value]
    while todo:
        node = g.producer(todo.pop())
        if node is None or node.op in ("linear", "matmul", "embedding", "attention", "rope"):
            continue
        if node.op in ("cos", "sin"):
            return node
        fresh = [v for v in node.operands if v not in seen]
        seen.update(fresh)
        todo += fresh
    return None
