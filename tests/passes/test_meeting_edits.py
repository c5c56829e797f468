"""Edits of one sweep: one that reads a value waits for one that changes what this value means."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fretsaw.ir import Graph, Node, parse, run
from fretsaw.passes.api import Edit, rule
from fretsaw.passes.kit.driver import run_rules

TEXT = """graph @g(%x: f32[1]) -> (%c) {
  const %two: f32[1] = data([2.0])
  const %three: f32[1] = data([3.0])
  %a: f32[1] = mul(%x, %two)
  %b: f32[1] = mul(%a, %three)
  %c: f32[1] = neg(%b)
}"""


@rule(root="mul", phase="canonical", keeps="algebra")
def push_factor(root: Node, g: Graph) -> Edit | None:
    """``(x * f) * h`` as ``(x * 1) * (f * h)``: the inner product is another number afterwards."""
    use = g.sole_use(root.out)
    factor = g.consts[root["b"]].load()
    if use is None or use.node.op != "mul" or (factor == 1).all():
        return None
    edit = Edit()
    edit.replace(root, b=edit.const("one", np.ones_like(factor)))
    edit.replace(use.node, b=edit.const("both", g.consts[use.node["b"]].load() * factor))
    return edit


@rule(root="neg", phase="canonical", keeps="algebra")
def negate_factor(root: Node, g: Graph) -> Edit | None:
    """``-(a * f)`` as ``a * -f``: reads the inner product, and changes nothing that the other rule changes."""
    inner = g.producer(root["x"])
    if inner is None or inner.op != "mul":
        return None
    edit = Edit()
    edit.rewrite(root, "mul", inner["a"], edit.const("minus", -g.consts[inner["b"]].load()))
    return edit


def test_a_reader_waits_for_what_changes_its_operand() -> None:
    outcome = run_rules(parse(TEXT), [push_factor, negate_factor], debug=False)
    assert outcome.sweeps > 2  # of the two edits of the first sweep one had to wait
    (got,) = run(outcome.graph, {"x": np.ones(1, np.float32)})
    assert got == -6


@pytest.mark.parametrize("seed", range(8))
def test_whichever_edit_is_found_first(seed: int) -> None:
    """The reader may be collected before the edit that changes what it reads."""
    outcome = run_rules(parse(TEXT), [push_factor, negate_factor], debug=False, shuffle=random.Random(seed))
    (got,) = run(outcome.graph, {"x": np.ones(1, np.float32)})
    assert got == -6
