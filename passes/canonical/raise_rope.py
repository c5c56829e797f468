"""Raise rotary position embedding to one op.

    %c, %s = cos, sin(%positions * inv_freq, twice) * scale
    %h = concat(neg(%x[R:2R]), %x[0:R])
    %y = add(mul(%x, %c), mul(%h, %s))           ==>   %y = rope(%x, %positions, inv_freq) {scale}

    %y = concat(sub(mul(%a, %c), mul(%b, %s)),
                add(mul(%b, %c), mul(%a, %s)))   ==>   the same, %a and %b the halves of %x; or its even and odd
                                                       features, joined first (DeepSeek's interleaved pairs)

    heads first, %x [B, H, S, E]                 ==>   transpose(rope(transpose(%x), ..)): [B, S, H, E] inside

Why:    positions become an operand, so a packed program can rotate tokens of any sequence; one kernel for nine nodes.
Needs:  cos and sin of one product of integer positions and constant frequencies; scaled variants (llama3, linear,
        yarn) are constants in inv_freq and scale.
Keeps:  algebra (the products are the same; the order of the sum may differ).
Stops:  each edit leaves one reader of a cos fewer.
Source: arXiv:2104.09864.
"""

from __future__ import annotations

from collections.abc import Sequence

from fretsaw.ir import Attr, Graph, Node, Value
from fretsaw.passes.api import Decline, Edit, rule, rules
from fretsaw.passes.canonical.rotary import Angles, first_rotation, trace_angles
from fretsaw.passes.kit.match import either, flat_const, last_axis, made_by

SWAP = (0, 2, 1, 3)  # [B, H, S, E] <-> [B, S, H, E]


@rule(root="add", phase="canonical", keeps="algebra")
def raise_rope_halves(root: Node, g: Graph) -> Edit | Decline | None:
    """``x * cos + rotate_half(x) * sin``."""
    for straight, turned in either(root):
        first, second = made_by(g, straight, "mul"), made_by(g, turned, "mul")
        if first is None or second is None:
            return None
        for half, sin in either(second):
            source = _rotated(g, half)
            if source is None:
                continue
            for x, cos in either(first):
                if x == source:
                    return _raise(root, g, x, cos, sin, doubled=True)
            return Decline("what is turned is not what is kept straight", at=first)
    return None


@rule(root="concat", phase="canonical", keeps="algebra")
def raise_rope_split(root: Node, g: Graph) -> Edit | Decline | None:
    """``concat(a * cos - b * sin, b * cos + a * sin)`` with a and b the halves of x."""
    if len(root.operands) != 2 or root.attr("axis") != last_axis(root.out):
        return None
    low, high = made_by(g, root.operands[0], "sub"), made_by(g, root.operands[1], "add")
    parts = [made_by(g, v, "mul") for n in (low, high) if n is not None for v in n.operands]
    if len(parts) != 4 or any(p is None for p in parts):
        return None
    ac, bs, bc, as_ = (p for p in parts if p is not None)
    for a, cos in either(ac):
        for b, sin in either(bs):
            if not (_pair(bc, b, cos) and _pair(as_, a, sin)):
                continue
            edit = Edit()
            x = _joined(g, a, b)
            if x is None and _interleaved(g, a, b):
                x = edit.insert("concat", a, b, before=root, axis=last_axis(a))
            if x is not None:
                return _raise(root, g, x, cos, sin, doubled=False, edit=edit)
    return None


def _pair(node: Node, a: Value, b: Value) -> bool:
    return node.operands in ((a, b), (b, a))


def _bounds(node: Node) -> tuple[object, object, object]:
    return node.attr("start"), node.attr("end"), node.attr("step")


def _rotated(g: Graph, value: Value) -> Value | None:
    """x when ``value`` is concat(-x[R:2R], x[0:R]) over the last axis."""
    join = made_by(g, value, "concat")
    if join is None or len(join.operands) != 2 or join.attr("axis") != last_axis(value):
        return None
    neg, low = made_by(g, join.operands[0], "neg"), made_by(g, join.operands[1], "slice")
    high = made_by(g, neg["x"], "slice") if neg is not None else None
    if low is None or high is None:
        return None
    return _joined(g, low.out, high.out)


def _joined(g: Graph, low_value: Value, high_value: Value) -> Value | None:
    """x when the two are its lower and upper half along the last axis."""
    low, high = made_by(g, low_value, "slice"), made_by(g, high_value, "slice")
    if low is None or high is None or low["x"] != high["x"]:
        return None
    x, size = low["x"], low["x"].tensor.shape[-1]
    if not isinstance(size, int) or not low.attr("axis") == high.attr("axis") == last_axis(x):
        return None
    half = size // 2
    return x if _bounds(low) == (0, half, 1) and _bounds(high) == (half, size, 1) else None


def _interleaved(g: Graph, even_value: Value, odd_value: Value) -> bool:
    """The two are the even and the odd features of one value: pairs side by side come out as halves."""
    even, odd = made_by(g, even_value, "slice"), made_by(g, odd_value, "slice")
    if even is None or odd is None or even["x"] != odd["x"] or even.out.type != odd.out.type:
        return False
    last = last_axis(even["x"])
    return (
        even.attr("axis") == odd.attr("axis") == last
        and (even.attr("start"), even.attr("step")) == (0, 2)
        and (odd.attr("start"), odd.attr("step")) == (1, 2)
        and odd.attr("end") == even["x"].tensor.shape[-1]
    )


def _raise(
    root: Node, g: Graph, x: Value, cos: Value, sin: Value, *, doubled: bool, edit: Edit | None = None
) -> Edit | Decline:
    c, s = trace_angles(g, cos), trace_angles(g, sin)
    for found, value, fn in ((c, cos, "cos"), (s, sin, "sin")):
        if isinstance(found, str):
            return Decline(f"{fn}: {found}", at=g.producer(value) or root)
        if found.fn != fn:
            return Decline(f"{fn} is a {found.fn}", at=g.producer(value) or root)
    assert isinstance(c, Angles) and isinstance(s, Angles)
    if not c.same_but_fn(s):
        return Decline("cos and sin are of different angles", at=root)
    if c.doubled != doubled:
        return Decline("the angles are not laid out as the halves are", at=root)
    lead, width = c.positions.tensor.shape, cos.tensor.shape[-1]
    if cos.type != sin.type or x.tensor.rank != 4 or x.tensor.shape[-1] not in (width, 2 * width):
        return Decline("x is not [B, H, S, E] or [B, S, H, E] with cos and sin to fit", at=root)
    edit = edit or Edit()
    freq = flat_const(edit, g, c.inv_freq)
    attrs: dict[str, Attr] = {"scale": c.scale, "layout": "half"}
    if cos.tensor.shape == (*lead, 1, width):
        edit.rewrite_node(root, "rope", [x, c.positions, freq], attrs)
    elif cos.tensor.shape == (lead[0], 1, *lead[1:], width):
        moved = edit.insert("transpose", x, before=root, perm=SWAP)
        turned = edit.insert_node("rope", [moved, c.positions, freq], attrs, before=root).out
        edit.rewrite(root, "transpose", turned, perm=SWAP)
    else:
        return Decline("cos has no axis of length one where x has its heads", at=g.producer(cos) or root)
    return edit


def rope_sites(graph: Graph) -> Sequence[Node]:
    """Attentions whose queries or keys are still turned by a bare cos or sin, once for each of the two."""
    return [
        node
        for node in graph.nodes
        if node.op == "attention"
        for value in (node["q"], node["k"])
        if first_rotation(graph, value) is not None
    ]


raise_rope = rules(
    "raise_rope", (raise_rope_halves, raise_rope_split), doc=__doc__, phase="canonical", clears=rope_sites
)
