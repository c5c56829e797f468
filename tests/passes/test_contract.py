"""Contracts: each kept, each broken with its whole message; requested passes and those of the pipeline differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from fretsaw.ir import Graph, Node, parse
from fretsaw.ir.errors import PassError
from fretsaw.passes.api import (
    Anything,
    AtLeast,
    Cleared,
    Contract,
    Decline,
    Edit,
    Layers,
    OnePer,
    Outcome,
    Pass,
    graph_pass,
    rule,
)
from fretsaw.passes.kit.contract import hold, layer_of
from fretsaw.passes.pipeline import run_pipeline
from tests.passes.kit import read

TEXT = """
graph @g(%x: f32[4]) -> (%d, %f) {
  %a: f32[4] = neg(%x)  // m.layers.0.a
  %b: f32[4] = neg(%a)  // m.layers.1.b
  %c: f32[4] = abs(%b)  // m.layers.1.b.inner
  %d: f32[4] = exp(%c)  // m.head
  %e: f32[4] = neg(%d)  // m.layers.2.e
  %f: f32[4] = exp(%e)  // m.tail
}"""


def flipping(only: Sequence[str], sites: Contract) -> Pass:
    """Writes neg of the named nodes as a subtraction from zero times x; declines the others."""

    @rule(root="neg", phase="canonical", keeps="algebra", sites=sites)
    def flip(root: Node, g: Graph) -> Edit | Decline | None:
        if root.out.name not in only:
            return Decline("not asked for", at=root)
        edit = Edit()
        edit.rewrite(root, "mul", root["x"], edit.insert("full", before=root, shape=(4,), value=-1.0))
        return edit

    return flip


def negations(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if n.op == "neg"]


def run(p: Pass, text: str = TEXT, *, requested: bool = True) -> Outcome:
    graph = read(text)
    outcome = p.run(graph)
    hold(p.name, p.sites, graph, outcome, requested=requested)
    return outcome


KEPT: list[tuple[Sequence[str], Contract]] = [
    ("abe", Cleared(negations)), ("abe", OnePer("neg")), ("ab", AtLeast(2)), ("ae", Layers((0, 2))), ("", Anything()),
]  # fmt: skip


@pytest.mark.parametrize(("only", "sites"), KEPT)
def test_kept(only: Sequence[str], sites: Contract) -> None:
    assert len(run(flipping(only, sites)).hits) == len(only)


DECLINED = {n: f"    | declined  %{n} (neg)  {m}: not asked for" for n, m in
            zip("abe", ("m.layers.0.a", "m.layers.1.b", "m.layers.2.e"), strict=True)}  # fmt: skip
HINT = "  hint  the declines above say what stood in the way at each node"
BROKEN: list[tuple[Sequence[str], Contract, list[str]]] = [
    ("ab", AtLeast(3), ["PassError: flip did not keep its contract: at least 3 sites", "  when  pass flip",
                        "    | reached 2 of at least 3 sites", DECLINED["e"], HINT]),
    ("ab", Layers((0, 3)), ["PassError: flip did not keep its contract: exactly the layers 0, 3",
                            "  at    m.layers.1.b", "  when  pass flip", "    | layer 3 has no site",
                            "    | reached layer 1, which is not in the list  %b (neg)  m.layers.1.b",
                            DECLINED["e"], HINT]),
    ("", AtLeast(1), ["PassError: flip was requested and reached no site", "  when  pass flip",
                      "    | reached 0 of at least 1 site", *DECLINED.values(), HINT]),
]  # fmt: skip


@pytest.mark.parametrize(("only", "sites", "lines"), BROKEN)
def test_broken(only: Sequence[str], sites: Contract, lines: list[str]) -> None:
    with pytest.raises(PassError) as error:
        run(flipping(only, sites))
    assert str(error.value) == "\n".join(lines)


@pytest.mark.parametrize("sites", [Cleared(negations), OnePer("neg")])
@pytest.mark.parametrize("requested", [True, False])
def test_sites_that_demand_the_pass_hold_always(sites: Contract, requested: bool) -> None:
    with pytest.raises(PassError) as error:
        run(flipping("ab", sites), requested=requested)
    assert error.value.what == "flip missed 1 of 3 sites" and error.value.where.endswith("m.layers.2.e")
    assert error.value.context.endswith(
        "  missed  %e (neg)  m.layers.2.e\n  declined  %e (neg)  m.layers.2.e: not asked for"
    )


@pytest.mark.parametrize("sites", [AtLeast(2), Layers((7,)), Anything()])
def test_the_pipeline_alone_may_find_nothing(sites: Contract) -> None:
    assert run(flipping("", sites), requested=False).hits == ()


def test_no_site_and_no_decline_says_where_to_look() -> None:
    with pytest.raises(PassError) as error:
        run(flipping("", AtLeast(1)), "graph @g(%x: f32[4]) -> (%y) {\n  %y: f32[4] = exp(%x)\n}")
    assert str(error.value) == (
        "PassError: flip was requested and reached no site\n  when  pass flip\n"
        "    | reached 0 of at least 1 site\n"
        "  hint  no node has the shape that the pass looks for: see `fretsaw passes flip`"
    )


def test_one_per_op_counts_by_module_and_refuses_twice() -> None:
    """A rule that starts from another op reaches the site in whose module its root lies."""

    @rule(root="abs", phase="canonical", keeps="algebra", sites=OnePer("exp"))
    def once(root: Node, g: Graph) -> Edit | Decline | None:
        edit = Edit()
        edit.rewrite(root, "maximum", root["x"], edit.insert("neg", root["x"], before=root))
        return edit

    text = """
graph @g(%x: f32[4]) -> (%c) {
  %a: f32[4] = abs(%x)  // l.0.attn.q
  %b: f32[4] = abs(%a)  // l.0.attn.k
  %c: f32[4] = exp(%b)  // l.0.attn
}"""
    run(once, text.replace("= abs(%a)", "= neg(%a)"))
    with pytest.raises(PassError) as error:
        run(once, text)
    assert error.value.what == "once missed 1 of 1 sites"
    assert error.value.context.endswith("reached 2 times  %c (exp)  l.0.attn")


def test_sites_that_have_the_form_already_count() -> None:
    @rule(root="neg", phase="canonical", keeps="algebra", sites=AtLeast(3))
    def have(root: Node, g: Graph) -> Edit | Decline | None:
        return Decline("is the wanted form", at=root, already=True)

    run(have)
    with pytest.raises(PassError, match="reached 3 of at least 4 sites"):
        run(replace(have, demands=AtLeast(4)))


def test_contract_from_options() -> None:
    @dataclass(frozen=True)
    class Options:
        layers: tuple[int, ...] = (0,)

    @rule(root="neg", phase="canonical", keeps="algebra", options=Options, sites=lambda o: Layers(o.layers))
    def flip(root: Node, g: Graph, options: Options) -> Edit | Decline | None:
        if layer_of(root.loc.module) not in options.layers:
            return Decline("another layer", at=root)
        edit = Edit()
        edit.rewrite(root, "mul", root["x"], edit.insert("full", before=root, shape=(4,), value=-1.0))
        return edit

    assert flip.sites == Layers((0,)) and flip.configured({"layers": "1,2"}).sites == Layers((1, 2))
    assert [n.out.name for n in run(flip).hits] == ["a"]
    assert [n.out.name for n in run(flip.configured({"layers": (1, 2)})).hits] == ["b", "e"]
    with pytest.raises(PassError, match="layer 9 has no site"):
        run(flip.configured({"layers": (9,)}))


def test_layer_of() -> None:
    assert layer_of("model.layers.7.mlp.experts.3.up") == 7
    assert layer_of("transformer.h.0") == 0
    assert layer_of("lm_head") is None and layer_of("layer1.conv2") is None


def test_requested_passes_of_a_pipeline() -> None:
    """What a pass reached where it stands in the pipeline counts for the request; a graph that changed does too."""
    graph = parse("graph @g(%x: f32[4]) -> (%y) {\n  %a: f32[4] = neg(%x)\n  %y: f32[4] = exp(%x)\n}")
    from fretsaw.passes.canonical.cse import cse
    from fretsaw.passes.canonical.dce import dce

    result = run_pipeline(graph, ["canonical"], [dce])
    assert [e.requested for e in result.ledger if e.name == "dce"] == [False, True]
    with pytest.raises(PassError, match="cse was requested and reached no site"):
        run_pipeline(graph, ["canonical"], [cse])

    @graph_pass(phase="canonical", keeps="bits")
    def silent(g: Graph) -> Outcome:
        return Outcome(replace(g, name="h"))

    assert run_pipeline(graph, ["canonical"], [silent]).graph.name == "h"
