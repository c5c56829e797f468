"""explain: near misses by depth with the line underlined, sites, what stands where nothing matched."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest

from fretsaw.ir import Graph, Node, parse
from fretsaw.passes.api import Decline, Edit, Outcome, graph_pass, rule
from fretsaw.passes.fused.merge_qkv import merge_qkv
from fretsaw.passes.pipeline import run_pipeline
from fretsaw.tools import cli
from fretsaw.tools.explain.near import explain
from fretsaw.tools.explain.report import at_site, lines, under
from fretsaw.tools.explain.stand import stand
from tests import families
from tests.passes.llama_text import llama
from tests.tools.test_diff import edited, model


def shown(found: str) -> str:
    return dedent(found).strip("\n")


def test_a_site_that_was_hit_and_one_that_was_missed() -> None:
    """Layer 1 projects its values from another value, so that three projections cannot be one."""
    text = edited(("%v1: f32[B, S, 8] = linear(%n1,", "%v1: f32[B, S, 8] = linear(%h0,"))
    found = explain(merge_qkv, parse(text, seed=0))
    assert [n.loc.module for n in found.hits] == [f"model.layers.{i}.self_attn" for i in (0, 2, 3)]
    site = at_site(found, "layers.1.self_attn")
    assert not site.hits and len(site.misses) == 1
    assert "\n".join(lines(site, "layers.1.self_attn", 8)) == shown("""
        merge_qkv (fused, keeps algebra) under layers.1.self_attn: 0 sites hit, 1 near miss

        near miss 1: the projections read different values
          at    %v1   model.layers.1.self_attn.v_proj
          rule  merge_qkv from its root %a1   model.layers.1.self_attn, 2 steps away
            | %k1: f32[B, S, 8] = linear(%n1, %model.layers.1.self_attn.k_proj.weight)
            | %kh1: f32[B, S, 2, 4] = reshape(%k1) {shape = [B, S, 2, 4]}
          > | %v1: f32[B, S, 8] = linear(%h0, %model.layers.1.self_attn.v_proj.weight)
            |                     ^^^^^^
            | %vh1: f32[B, S, 2, 4] = reshape(%v1) {shape = [B, S, 2, 4]}
            | %a1: f32[B, S, 2, 4] = attention(%qh1, %kh1, %vh1) {scale = 0.5}
    """)


def test_the_deepest_miss_comes_first_and_equal_layers_are_told_once() -> None:
    @rule(root="attention", phase="fused", keeps="bits")
    def shallow(root: Node, g: Graph) -> Decline | None:
        return Decline("stopped at once", at=root)

    @rule(root="mul", phase="fused", keeps="bits")
    def deep(root: Node, g: Graph) -> Decline | None:
        silu = g.producer(root["a"])
        gate = g.producer(silu["x"]) if silu is not None else None
        return Decline("gate has no bias", at=gate) if gate is not None else None

    from fretsaw.passes.api import rules

    both = rules("both", [shallow, deep], doc="", phase="fused")
    found = explain(both, parse(model(), seed=0))
    assert [(m.rule, m.depth) for m in found.misses] == [("deep", 2)] * 4 + [("shallow", 0)] * 4
    text = "\n".join(lines(found, "", 1))
    assert "also  4 sites in all: model.layers.{0-3}.mlp" in text
    assert "1 more near misses, less deep: --most 2 shows them" in text


def test_declines_of_a_whole_graph_pass() -> None:
    @graph_pass(phase="fused", keeps="bits")
    def refuse(graph: Graph) -> Outcome:
        return Outcome(graph, declines=(Decline("not today", at=graph.nodes[0]),))

    found = explain(refuse, parse(model(), seed=0))
    assert [(m.decline.reason, m.root) for m in found.misses] == [("not today", None)]
    assert "near miss 1: not today" in "\n".join(lines(found, "", 8))


def test_nothing_to_start_from() -> None:
    @rule(root="softmax", phase="fused", keeps="bits")
    def sharpen(root: Node, g: Graph) -> Edit | None:
        return None

    found = at_site(explain(sharpen, parse(model(), seed=0)), "layers.3.self_attn")
    assert "\n".join(lines(found, "layers.3.self_attn", 8)) == shown("""
        sharpen (fused, keeps bits) under layers.3.self_attn: 0 sites hit, 0 near misses
        no node of op `softmax` under layers.3.self_attn
          ops there: 4 linear, 4 reshape, attention
    """)


def test_roots_of_another_shape_are_named() -> None:
    @rule(root="mul", phase="fused", keeps="bits")
    def never(root: Node, g: Graph) -> Edit | None:
        return None

    found = at_site(explain(never, parse(model(), seed=0)), "layers.3.mlp")
    text = "\n".join(lines(found, "layers.3.mlp", 8))
    assert "another shape: 1 node of op `mul`" in text and "  %m3   model.layers.3.mlp" in text


def test_the_graph_is_run_up_to_the_pass() -> None:
    graph = parse(llama(2), seed=0)
    met = stand(graph, merge_qkv)
    assert met.phase == "canonical" and met.count("rms_norm") == 5 and met.count("rsqrt") == 0
    canonical = run_pipeline(graph, ("canonical",)).graph
    assert stand(canonical, merge_qkv).count("linear") == canonical.count("linear")


@pytest.mark.parametrize(
    ("module", "path", "expected"),
    [("m.layers.3.mlp", "layers.3", True), ("m.layers.31.mlp", "layers.3", False), ("m.layers.3", "m.layers.3", True)],
)
def test_paths(module: str, path: str, expected: bool) -> None:
    assert under(module, path) is expected


def test_a_checkpoint_and_its_dump_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fretsaw.frontend.capture import capture
    from fretsaw.frontend.checkpoint import load_checkpoint
    from fretsaw.ir import to_text

    families.save("llama", tmp_path / "llama")
    text = tmp_path / "captured.fir"
    text.write_text(to_text(capture(load_checkpoint(tmp_path / "llama"))) + "\n")
    out = []
    for source in (tmp_path / "llama", text):
        assert cli.run(["explain", str(source), "raise_rms_norm", "--json"]) == 0
        out.append(json.loads(capsys.readouterr().out))
    assert out[0] == out[1]
    assert out[0]["near_misses"] == [] and {"model.norm"} < {n["module"] for n in out[0]["hits"]}


def test_a_pass_of_an_earlier_phase(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.fir"
    path.write_text(model().replace("phase canonical", "phase fused"))
    assert cli.run(["explain", str(path), "raise_rope", "--quiet"]) == 2
    assert "is in phase fused, the pass belongs to canonical" in capsys.readouterr().err
