"""Whole texts of errors of passes: missed sites, edits that are none, rules that never rest or fail."""

from __future__ import annotations

from fretsaw.ir import Graph, Node
from fretsaw.ir.errors import PassError
from fretsaw.passes.api import AtLeast, Decline, Edit, Pass, rule
from fretsaw.passes.pipeline import PlannedPass, run_step
from tests.errors.kit import block, message, text


def step(p: Pass, *, requested: bool = False) -> object:
    return run_step(PlannedPass("canonical", p, requested), block(), (), None, False)


def test_sites_that_were_missed() -> None:
    @rule(root="silu", phase="canonical", keeps="bits", clears=lambda g: [n for n in g.nodes if n.op == "silu"])
    def raise_silu(root: Node, g: Graph) -> Decline:
        return Decline("its reader is exp, not mul", at=g.uses(root.out)[0].node)

    assert message(PassError, lambda: step(raise_silu)) == text("""
        PassError: raise_silu missed 1 of 1 sites
          at    %r   layers.0.act
          when  pass raise_silu
            | %n: f32[2, 8] = rms_norm(%a, %gain) {eps = 1e-05}
            | %q: f32[2, 4] = linear(%n, %w)
          > | %r: f32[2, 4] = silu(%q)
            |                 ^^^^
            | %s: f32[2, 4] = exp(%r)
            | %y: f32[2, 4] = neg(%s)
            | missed  %r (silu)  layers.0.act
            | declined  %s (exp)  layers.0.act: its reader is exp, not mul
          hint  the declines above say what stood in the way at each node
    """)


def test_a_requested_pass_without_a_site() -> None:
    @rule(root="softmax", phase="canonical", keeps="bits", sites=AtLeast(2))
    def sharpen(root: Node, g: Graph) -> None:
        return None

    assert message(PassError, lambda: step(sharpen, requested=True)) == text("""
        PassError: sharpen was requested and reached no site
          when  pass sharpen
            | reached 0 of at least 2 sites
          hint  no node has the shape that the pass looks for: see `fretsaw passes sharpen`
    """)


def test_an_edit_that_changes_nothing() -> None:
    @rule(root="exp", phase="canonical", keeps="bits")
    def idle(root: Node, g: Graph) -> Edit:
        return Edit()

    assert message(PassError, lambda: idle.run(block())) == text("""
        PassError: idle returned an edit that changes nothing
          at    %s   layers.0.act
          when  pass idle
            | %q: f32[2, 4] = linear(%n, %w)
            | %r: f32[2, 4] = silu(%q)
          > | %s: f32[2, 4] = exp(%r)
            |                 ^^^
            | %y: f32[2, 4] = neg(%s)
          hint  return a Decline that says why the site is left alone, or None where it is none
    """)


def test_an_edit_that_changes_a_type() -> None:
    @rule(root="exp", phase="canonical", keeps="bits")
    def widen(root: Node, g: Graph) -> Edit:
        edit = Edit()
        edit.rewrite(root, "cast", root["x"], dtype="f64")
        return edit

    assert message(PassError, lambda: widen.run(block())) == text("""
        PassError: widen failed: rewriting exp as cast changes its type from f32[2, 4] to f64[2, 4]
          at    %s   layers.0.act
          when  pass widen
            | %q: f32[2, 4] = linear(%n, %w)
            | %r: f32[2, 4] = silu(%q)
          > | %s: f32[2, 4] = exp(%r)
            |                 ^^^
            | %y: f32[2, 4] = neg(%s)
    """)


def test_rules_that_never_rest() -> None:
    @rule(root=("silu", "relu"), phase="canonical", keeps="algebra")
    def flip(root: Node, g: Graph) -> Edit:
        edit = Edit()
        edit.rewrite(root, "relu" if root.op == "silu" else "silu", root["x"])
        return edit

    assert message(PassError, lambda: flip.run(block(), debug=False)) == text("""
        PassError: flip does not come to rest: over 4 edits per node
          at    %r   layers.0.act
          when  rules fired: flip 25 times
            | flip  %r (relu)  layers.0.act
            | flip  %r (silu)  layers.0.act
            | flip  %r (relu)  layers.0.act
            | flip  %r (silu)  layers.0.act
            | flip  %r (relu)  layers.0.act
            | flip  %r (silu)  layers.0.act
            | flip  %r (relu)  layers.0.act
            | flip  %r (silu)  layers.0.act
            | flip  %r (relu)  layers.0.act
            | flip  %r (silu)  layers.0.act
          hint  the last 10 edits are above: each edit must make something less, which the docstring names under Stops
    """)
