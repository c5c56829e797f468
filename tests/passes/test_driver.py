"""The driver: edits that meet wait, names stay unique, budgets end, mistakes of rules are named."""

from __future__ import annotations

import pytest

from fretsaw.ir import Graph, Node, to_text
from fretsaw.ir.errors import PassError, VerifyError
from fretsaw.passes.api import Decline, Edit, apply, rule
from tests.passes.kit import golden, read

CHAIN = """
graph @g(%x: f32[4]) -> (%d) {
  %a: f32[4] = neg(%x)  // m.a
  %b: f32[4] = abs(%a)  // m.b
  %c: f32[4] = abs(%b)  // m.c
  %d: f32[4] = exp(%c)  // m.d
}
"""


@rule(root="abs", phase="canonical", keeps="bits")
def drop_double_abs(root: Node, g: Graph) -> Edit | Decline | None:
    """abs(abs(x)) is abs(x)."""
    inner = g.producer(root["x"])
    if inner is None or inner.op != "abs":
        return Decline("operand is no abs", at=inner or root)
    edit = Edit()
    edit.redirect(root.out, inner.out)
    return edit


def test_redirect_and_declines() -> None:
    golden(
        drop_double_abs,
        CHAIN,
        "\n".join(line for line in CHAIN.splitlines() if "%c:" not in line).replace("exp(%c)", "exp(%b)"),
    )
    _, declines = apply(drop_double_abs, read(CHAIN))
    assert [(d.reason, d.at.out.name) for d in declines] == [("operand is no abs", "a")]


def test_chains_of_redirects_fold_in_one_sweep() -> None:
    text = CHAIN.replace("  %d:", "  %c2: f32[4] = abs(%c)\n  %c3: f32[4] = abs(%c2)\n  %d:").replace(
        "exp(%c)", "exp(%c3)"
    )
    outcome = drop_double_abs.run(read(text))
    assert [n.op for n in outcome.graph.nodes] == ["neg", "abs", "exp"]
    assert outcome.sweeps == 2 and len(outcome.hits) == 3


def test_new_names_never_collide() -> None:
    @rule(root="abs", phase="canonical", keeps="algebra")
    def abs_by_max(root: Node, g: Graph) -> Edit:
        edit = Edit()
        minus = edit.insert("neg", root["x"], before=root, name="x")  # taken
        edit.rewrite(root, "maximum", root["x"], minus)
        return edit

    after, _ = apply(abs_by_max, read(CHAIN))
    assert [n.out.name for n in after.nodes] == ["a", "x_1", "b", "x_2", "c", "d"]
    assert after.nodes[1].loc.rules == ("abs_by_max",) and after.nodes[1].loc.module == "m.b"


def test_meaning_changing_edits_keep_each_other_away() -> None:
    """Halving is pushed from a producer to its reader; two such edits in one sweep would lose a factor."""

    @rule(root="mul", phase="canonical", keeps="algebra")
    def push_factor(root: Node, g: Graph) -> Edit | Decline | None:
        use = g.sole_use(root.out)
        if root["b"] not in g.consts or use is None or use.node.op != "mul" or use.slot != "a":
            return None
        if (g.consts[root["b"]].load() == 1).all():
            return None
        edit = Edit()
        factor = g.consts[root["b"]].load()
        edit.replace(root, b=edit.const(f"{root.out.name}.one", factor * 0 + 1))
        edit.replace(use.node, b=edit.const(f"{use.node.out.name}.f", g.consts[use.node["b"]].load() * factor))
        return edit

    text = """
graph @g(%x: f32[1]) -> (%d) {
  const %two: f32[1] = data([2.0])
  const %three: f32[1] = data([3.0])
  const %five: f32[1] = data([5.0])
  %a: f32[1] = mul(%x, %two)
  %b: f32[1] = mul(%a, %three)
  %c: f32[1] = mul(%b, %five)
  %d: f32[1] = neg(%c)
}"""
    after, _ = apply(push_factor, read(text))
    assert [float(after.consts[n["b"]].load()[0]) for n in after.nodes[:3]] == [1.0, 1.0, 30.0]


RESTLESS = """PassError: flip does not come to rest: over 4 edits per node
  at    %c   m.c
  when  rules fired: flip 18 times
    | flip  %c (abs)  m.c
    | flip  %a (abs)  m.a
    | flip  %b (neg)  m.b
    | flip  %c (neg)  m.c
    | flip  %a (neg)  m.a
    | flip  %b (abs)  m.b
    | flip  %c (abs)  m.c
    | flip  %a (abs)  m.a
    | flip  %b (neg)  m.b
    | flip  %c (neg)  m.c
  hint  the last 10 edits are above: each edit must make something less, which the docstring names under Stops"""


def test_a_rule_that_never_rests_runs_out_of_budget() -> None:
    @rule(root=("neg", "abs"), phase="canonical", keeps="bits")
    def flip(root: Node, g: Graph) -> Edit:
        edit = Edit()
        edit.rewrite(root, "abs" if root.op == "neg" else "neg", root["x"])
        return edit

    with pytest.raises(PassError) as error:
        apply(flip, read(CHAIN))
    assert str(error.value) == RESTLESS


def test_mistakes_of_rules_are_named() -> None:
    @rule(root="exp", phase="canonical", keeps="bits")
    def empty(root: Node, g: Graph) -> Edit:
        return Edit()

    @rule(root="exp", phase="canonical", keeps="bits")
    def retype(root: Node, g: Graph) -> Edit:
        edit = Edit()
        edit.rewrite(root, "cast", root["x"], dtype="f64")
        return edit

    @rule(root="exp", phase="canonical", keeps="bits")
    def unknown(root: Node, g: Graph) -> Edit:
        edit = Edit()
        edit.rewrite(root, "exponential", root["x"])
        return edit

    @rule(root="exp", phase="canonical", keeps="bits")
    def backwards(root: Node, g: Graph) -> Edit:
        edit = Edit()
        edit.rewrite(g.nodes[0], "neg", root["x"])
        return edit

    for p, error, message in (
        (empty, PassError, "empty returned an edit that changes nothing"),
        (retype, PassError, "retype failed: rewriting exp as cast changes its type from f32[4] to f64[4]"),
        (unknown, PassError, "unknown failed: there is no op exponential"),
        (backwards, VerifyError, "%c is not defined before its use (invariant 2)"),
    ):
        with pytest.raises(error) as caught:
            apply(p, read(CHAIN))
        assert message in str(caught.value)


def test_the_graph_before_is_never_touched() -> None:
    before = read(CHAIN)
    text = to_text(before)
    apply(drop_double_abs, before)
    assert to_text(before) == text
