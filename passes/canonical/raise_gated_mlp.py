"""Raise the activation of a gated MLP written out, so that the product of gate and up is `mul(act(%g), %u)`.

    %y = %g * sigmoid(%g) * %u                    ==>     %y = mul(silu(%g), %u)
    %y = %g * 0.5 * (1 + erf(%g / sqrt(2))) * ..  ==>     %y = mul(gelu(%g), ..)

Why:    the IR has no op for a gated MLP: `mul(act(linear), linear)` is its form, which `merge_gate_up` and the
        backends' kernels take hold of. This pass brings the eager spellings into it; those with `silu` or `gelu` as one
        call are in it already.
Needs:  the factors in any order, as one or two products; nothing else reads a product that is taken apart.
Keeps:  algebra: three factors are multiplied in another order.
Stops:  each edit leaves one product of a value and a function of itself fewer.
Source: GLU variants, arXiv:2002.05202; SiLU and GELU, arXiv:1606.08415.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fretsaw.ir import Graph, Node, Value
from fretsaw.passes.api import Decline, Edit, rule
from fretsaw.passes.kit.match import either, made_by, scalar

CLOSE = 1e-6  # relative: constants pass through float32


def own_sigmoids(graph: Graph) -> Sequence[Node]:
    """Sigmoids that multiply their own argument."""
    out = []
    for node in graph.nodes:
        if node.op == "sigmoid":
            readers = [u.node for u in graph.uses(node.out) if u.node.op == "mul"]
            beyond = [u.node for r in readers for u in graph.uses(r.out) if u.node.op == "mul"]
            if any(node["x"] in _factors(graph, r) for r in [*readers, *beyond]):
                out.append(node)
    return out


@rule(root="mul", phase="canonical", keeps="algebra", clears=own_sigmoids, rounds_constants=True)
def raise_gated_mlp(root: Node, g: Graph) -> Edit | Decline | None:
    """One activation for the factors of ``root`` that are a value and a function of it."""
    factors = _factors(g, root)
    for found in (_silu(g, factors), _gelu(g, factors)):
        if found is None:
            continue
        op, gate, rest = found
        inner = next((n for v in root.operands if (n := made_by(g, v, "mul")) is not None), None)
        if len(factors) > 2 and inner is not None and g.sole_use(inner.out) is None:
            return Decline("the inner product is read elsewhere too", at=inner)
        if any(scalar(g, v) is not None and not _narrow(v, gate) for v in factors):
            return Decline("a constant factor widens the product", at=root)
        edit = Edit()
        if not rest:
            edit.rewrite(root, op, gate)
        else:
            edit.rewrite(root, "mul", edit.insert(op, gate, before=root), rest[0])
        return edit
    return None


def _narrow(constant: Value, gate: Value) -> bool:
    """Multiplying by it does not change the shape."""
    return constant.tensor.numel == 1 and constant.tensor.rank <= gate.tensor.rank


def _factors(g: Graph, root: Node) -> list[Value]:
    """The factors of a product, one inner product taken apart unless it is an activation by itself."""
    for inner_value, other in either(root):
        inner = made_by(g, inner_value, "mul")
        if inner is not None and _silu(g, list(inner.operands)) is None:
            return [*inner.operands, other]
    return list(root.operands)


def _silu(g: Graph, factors: Sequence[Value]) -> tuple[str, Value, list[Value]] | None:
    for value in factors:
        sigmoid = made_by(g, value, "sigmoid")
        if sigmoid is not None and sigmoid["x"] in factors:
            return "silu", sigmoid["x"], _without(factors, value, sigmoid["x"])
    return None


def _gelu(g: Graph, factors: Sequence[Value]) -> tuple[str, Value, list[Value]] | None:
    """x, one half, and one plus the error function of x over the root of two."""
    half = next((v for v in factors if scalar(g, v) == 0.5), None)
    for value in factors:
        add = made_by(g, value, "add")
        for one, erf_value in either(add) if add is not None else ():
            erf = made_by(g, erf_value, "erf")
            x = _over_root_two(g, erf["x"]) if erf is not None else None
            if scalar(g, one) == 1.0 and x in factors and half is not None and x is not None:
                return "gelu", x, _without(factors, value, x, half)
    return None


def _over_root_two(g: Graph, value: Value) -> Value | None:
    node = made_by(g, value, "mul", "div")
    factor = scalar(g, node["b"]) if node is not None else None
    if node is None or not factor:
        return None
    root = factor if node.op == "div" else 1 / factor
    return node["a"] if abs(root - math.sqrt(2)) <= CLOSE * math.sqrt(2) else None


def _without(factors: Sequence[Value], *used: Value) -> list[Value]:
    left = list(factors)
    for value in used:
        left.remove(value)
    return left
