"""Analysis: the parts of an attention that is written out as products and a softmax."""

from __future__ import annotations

from dataclasses import dataclass, field

from fretsaw.ir import DimLike, Graph, Node, Value
from fretsaw.passes.canonical.mask_values import BLOCKED
from fretsaw.passes.canonical.masks import Hiding
from fretsaw.passes.kit.edit import Decline
from fretsaw.passes.kit.match import either, last_axis, made_by, scalar, squeezed

BETWEEN = ("where", "add", "sub", "mul", "div", "cast", "concat", "tanh")  # from the logits' product to the softmax
KEYS_LAST = (0, 1, 3, 2)
CLOSE = 1e-6  # relative: constants pass through float32


@dataclass
class Logits:
    """An attention, heads first.

    Args:
        q, k, v: [B, H, S, E], [B, K, T, E], [B, K, T, Ev].
        masks: What hides keys.
        sinks: Constant with H elements, or None.
        shape: Of the logits, [B, H, S, T].
    """

    q: Value
    k: Value
    v: Value
    shape: tuple[DimLike, ...]
    scale: float = 1.0
    softcap: float = 0.0
    sinks: Value | None = None
    masks: list[Hiding] = field(default_factory=list)


def written_attention(g: Graph, root: Node) -> Node | None:
    """The softmax whose weights ``root`` multiplies with values, when its logits come from a product."""
    softmax = _softmax(g, root["a"])
    return softmax if softmax is not None and reaches_product(g, softmax["x"]) else None


def _softmax(g: Graph, weights: Value) -> Node | None:
    node = g.producer(weights)
    while node is not None and node.op in ("cast", "slice"):
        node = g.producer(node["x"])
    return node if node is not None and node.op == "softmax" else None


def read_logits(g: Graph, softmax: Node, root: Node) -> Logits | Decline:
    """Everything between the two products, or what is strange there."""
    if softmax["x"].tensor.rank != 4 or softmax.attr("axis") != 3:
        return Decline(f"logits must be [B, H, S, T] with softmax over T, are {softmax['x'].tensor}", at=softmax)
    reader = _elsewhere(g, softmax, root)
    if reader is not None:
        return Decline("the attention weights are read elsewhere, so they have to be computed", at=reader)
    at = _shifted(g, softmax["x"])
    sinks = None
    join = made_by(g, at, "concat")
    if join is not None:
        sinks = _sinks(g, join)
        if sinks is None or not _cuts_sinks(g, root["a"], join):
            return Decline("what is joined to the logits is no sink: one constant a head, cut off again", at=join)
        at = join.operands[0]
    elif made_by(g, root["a"], "slice") is not None:
        return Decline("a part of the weights is cut off", at=g.producer(root["a"]) or root)
    found = Logits(root.out, root.out, root["b"], at.tensor.shape, sinks=sinks)
    at = _peel_masks(g, at, found)
    at = _peel_cap(g, at, found)
    at = _peel_scale(g, at, found)
    product = made_by(g, at, "matmul")
    if product is None:
        node = g.producer(at)
        what = node.op if node is not None else f"%{at.name}"
        return Decline(f"{what} between the product of queries and keys and the softmax", at=node or softmax)
    keys = made_by(g, product["b"], "transpose")
    if keys is None or keys.attr("perm") != KEYS_LAST:
        return Decline("the keys are not transposed, so their heads cannot be told", at=product)
    found.q, found.k = product["a"], keys["x"]
    return _shared_heads(g, found, product)


def _elsewhere(g: Graph, softmax: Node, root: Node) -> Node | None:
    """A reader of the weights besides ``root`` (the softmax itself for a graph output)."""
    value = softmax.out
    while value != root["a"]:
        uses = g.uses(value)
        other = next((u.node for u in uses if u.node.op not in ("cast", "slice")), None)
        if other is not None or len(uses) != 1 or value in g.output_set:
            return other or softmax
        value = uses[0].node.out
    readers = [u.node for u in g.uses(value) if u.node is not root]
    return readers[0] if readers else softmax if value in g.output_set else None


def _shifted(g: Graph, value: Value) -> Value:
    """Without the subtraction of the row's maximum, which softmax does itself."""
    node = made_by(g, value, "sub")
    top = made_by(g, node["b"], "max") if node is not None else None
    if node is not None and top is not None and top["x"] == node["a"] and top.attr("keepdims"):
        return node["a"] if top.attr("axis") == last_axis(value) else value
    return value


def _sinks(g: Graph, join: Node) -> Value | None:
    """The constant of one logit a head that is joined behind the others."""
    if len(join.operands) != 2 or join.attr("axis") != 3 or join.operands[1].tensor.shape[3] != 1:
        return None
    value = join.operands[1]
    heads = value.tensor.shape[1]
    node = made_by(g, value, "expand", "reshape")
    while node is not None:
        if node.op == "expand" and node["x"].tensor.shape[-3:] != (heads, 1, 1):
            return None
        if node.op == "reshape" and squeezed(node["x"].tensor) != squeezed(node.out.tensor):
            return None
        value = node["x"]
        node = made_by(g, value, "expand", "reshape")
    return value if value in g.consts and squeezed(value.tensor) == (heads,) else None


def _cuts_sinks(g: Graph, weights: Value, join: Node) -> bool:
    node = g.producer(weights)
    while node is not None and node.op == "cast":
        node = g.producer(node["x"])
    if node is None or node.op != "slice" or node.attr("axis") != 3 or node.attr("step") != 1:
        return False
    return node.attr("start") == 0 and node.attr("end") == join.operands[0].tensor.shape[3]


def _peel_masks(g: Graph, at: Value, found: Logits) -> Value:
    """Below all additions of masks and choices between a logit and a very low one."""
    while True:
        node = made_by(g, at, "where", "add")
        if node is None:
            return at
        sides = (node["a"], node["b"])
        logits = [v for v in sides if reaches_product(g, v)]
        if len(logits) != 1:
            return at
        other = sides[1] if logits[0] == sides[0] else sides[0]
        if node.op == "where":
            low = uniform(g, other)
            if low is None or low > BLOCKED:
                return at
            found.masks.append(Hiding(node["cond"], node, shows=logits[0] == sides[0]))
        else:
            found.masks.append(Hiding(other, node))
        at = logits[0]


def _peel_cap(g: Graph, at: Value, found: Logits) -> Value:
    """Below ``tanh(x / cap) * cap``."""
    outer = made_by(g, at, "mul")
    for capped, factor in either(outer) if outer is not None else ():
        tanh, cap = made_by(g, capped, "tanh"), scalar(g, factor)
        inner = made_by(g, tanh["x"], "div", "mul") if tanh is not None else None
        below = scalar(g, inner["b"]) if inner is not None else None
        if inner is None or cap is None or not below:
            continue
        divisor = below if inner.op == "div" else 1 / below
        if abs(divisor - cap) <= CLOSE * cap:
            found.softcap = cap
            return inner["a"]
    return at


def _peel_scale(g: Graph, at: Value, found: Logits) -> Value:
    """Below every multiplication by a number."""
    while (node := made_by(g, at, "mul", "div")) is not None:
        a, b = node.operands
        factor = scalar(g, b)
        if factor is None and node.op == "mul":
            (a, b), factor = (b, a), scalar(g, a)
        if not factor:
            return at
        found.scale *= factor if node.op == "mul" else 1 / factor
        at = a
    return at


def reaches_product(g: Graph, value: Value) -> bool:
    """Nodes that can stand between logits and a softmax lead from a product to ``value``."""
    todo, seen = [value], set[Value]()
    while todo:
        node = g.producer(todo.pop())
        if node is None or node.out in seen:
            continue
        if node.op == "matmul":
            return True
        seen.add(node.out)
        todo += node.operands if node.op in BETWEEN else ()
    return False


def uniform(g: Graph, value: Value) -> float | None:
    """The number that ``value`` holds everywhere."""
    node = made_by(g, value, "expand", "full")
    if node is None:
        return scalar(g, value)
    return node.float_attr("value") if node.op == "full" else uniform(g, node["x"])


def _shared_heads(g: Graph, found: Logits, product: Node) -> Logits | Decline:
    """With keys and values as they were before every head was repeated."""
    heads = found.q.tensor.shape[1]
    k, v = _unrepeated(g, found.k), _unrepeated(g, found.v)
    if k is not None and v is not None and k.tensor.shape[1] == v.tensor.shape[1]:
        found.k, found.v = k, v
    if not found.q.tensor.rank == found.k.tensor.rank == found.v.tensor.rank == 4:
        return Decline("queries, keys and values must be [B, H, S, E]", at=product)
    own = found.k.tensor.shape[1]
    batch = {x.tensor.shape[0] for x in (found.q, found.k, found.v)}
    if not isinstance(heads, int) or not isinstance(own, int) or heads % own or len(batch) > 1:
        return Decline(f"{heads} query heads cannot share {own} key heads", at=product)
    return found


def _unrepeated(g: Graph, value: Value) -> Value | None:
    """x [B, K, T, E] when ``value`` [B, K * n, T, E] holds each of its heads n times in a row."""
    merge = made_by(g, value, "reshape")
    expand = made_by(g, merge["x"], "expand") if merge is not None else None
    split = made_by(g, expand["x"], "reshape") if expand is not None else None
    if expand is None or split is None or split["x"].tensor.rank != 4 or expand.out.tensor.rank != 5:
        return None
    batch, own, tokens, size = split["x"].tensor.shape
    if split.out.tensor.shape != (batch, own, 1, tokens, size):
        return None
    wide = expand.out.tensor.shape
    times = wide[2]
    if wide != (batch, own, times, tokens, size) or value.tensor.shape != (batch, own * times, tokens, size):
        return None
    return split["x"]
