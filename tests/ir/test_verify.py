"""Each numbered invariant of the verifier has a graph that breaks it, and views see the graph as it is."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import pytest

from fretsaw.ir import Const, DigestData, Graph, Node, TensorType, Value, parse, verify
from fretsaw.ir.consts import ArrayData
from fretsaw.ir.errors import VerifyError
from fretsaw.ir.views import data_flow, is_convex

GOOD = """
graph @g(%x: f32[B, 8], %kv: handle<kv_cache>, %k: f32[B, 1, 8]) -> (%y) {
  phase packed
  dim B in [1, 64]
  const %w: f32[4, 8]
  %n: f32[B, 8] = rms_norm(%x) {eps = 1e-05}  // model.norm (m.py:7)
  %y: f32[B, 4] = linear(%n, %w)  // model.head
  kv_append(%kv, %k, %k) {layer = 0}
}"""


def graph() -> Graph:
    out = parse(GOOD.strip())
    verify(out)
    return out


BREAKS = [
    (1, "%y: f32[B, 4]", "%n2: f32[B, 4]", "is used twice"),
    (3, "rms_norm(", "norm(", "there is no op norm"),
    (6, "linear(%n, %w)", "linear(%n)", "takes input weight bias?, got 1 operands"),
    (6, "{eps = 1e-05}", '{eps = "small"}', "attribute eps must be float"),
    (6, "{eps = 1e-05}", "", "attribute eps is missing"),
    (6, "%y: f32[B, 4]", "%y: f32[B, 5]", "result is declared f32[B, 5], its shape rule gives f32[B, 4]"),
    (6, "%w: f32[4, 8]", "%w: f32[4, 9]", "in-features differ: input has 8, weight has 9"),
    (7, "dim B in [1, 64]", "dim C in [1, 64]", "symbol B has no valid range"),
    (7, "[1, 64]", "[65, 64]", "symbol B has no valid range"),
    (10, "rms_norm(%x) {eps = 1e-05}", "concat(%x, %kv) {axis = 0}", "xs1 must be a tensor"),
    (11, "phase packed", "phase fused", "kv_append is not legal in phase fused"),
    (11, "phase packed", "phase lowered", "there is no phase lowered"),
]


@pytest.mark.parametrize(("number", "old", "new", "message"), BREAKS[1:])
def test_invariants(number: int, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(VerifyError) as error:
        verify(parse(GOOD.strip().replace(old, new)))
    assert message in error.value.what
    if "phase lowered" not in new and number != 10:
        assert f"(invariant {number})" in error.value.what


def test_invariants_that_text_cannot_break() -> None:
    good = graph()
    norm, head, append = good.nodes
    twice = replace(good, nodes=(norm, norm, head, append))
    order = replace(good, nodes=(head, norm, append))
    unsorted = replace(good, nodes=(replace(norm, attrs=(("eps", 1e-5), ("eps", 1e-5))), head, append))
    output = replace(good, outputs=(Value("z", TensorType("f32", ())),))
    w = next(iter(good.consts))
    mistyped = replace(good, consts={w: Const(TensorType("f32", (8, 4)), DigestData("0"))})
    for number, broken in ((1, twice), (2, order), (5, unsorted), (8, output), (9, mistyped)):
        with pytest.raises(VerifyError, match=rf"\(invariant {number}\)"):
            verify(broken)


def test_the_whole_message() -> None:
    with pytest.raises(VerifyError) as error:
        verify(parse(GOOD.strip().replace("f32[4, 8]", "f32[4, 9]")), when="after fold_norm_gain")
    assert str(error.value) == (
        "VerifyError: linear: in-features differ: input has 8, weight has 9 (invariant 6)\n"
        "  at    %y   model.head\n"
        "  when  after fold_norm_gain, phase packed\n"
        "    | %n: f32[B, 8] = rms_norm(%x) {eps = 1e-05}\n"
        "  > | %y: f32[B, 4] = linear(%n, %w)\n"
        "    |                            ^^ const f32[4, 9]\n"
        "    | kv_append(%kv, %k, %k) {layer = 0}\n"
        "  hint  a bug of that pass: send this message and the IR that `--dump-ir DIR` writes"
    )


def test_nodes_are_checked_once() -> None:
    good = graph()
    assert good.nodes[0].__dict__["_checked"]
    assert "_checked" not in replace(good.nodes[0], op="layer_norm").__dict__


def test_data_flow_view() -> None:
    text = GOOD.strip().replace("\n}", "\n  kv_append(%kv, %k, %k) {layer = 0}\n}")
    view = data_flow(parse(text))
    assert sorted(view.edges) == [(0, 1), (2, 3)]
    assert nx.is_directed_acyclic_graph(view)
    chain = nx.DiGraph([(0, 1), (1, 2), (0, 2)])
    assert is_convex(chain, {0, 1}) and is_convex(chain, {0, 1, 2}) and not is_convex(chain, {0, 2})


def test_values_and_arrays() -> None:
    node: Node = graph().nodes[1]
    assert node["weight"].name == "w" and node.get("bias") is None and node.out.name == "y"
    const = parse("graph @g() -> () {\n const %w: f32[2] = data([1.5, 2.0])\n}").consts
    (value,) = const.values()
    assert isinstance(value.data, ArrayData) and value.load().tolist() == [1.5, 2.0] and value.nbytes == 8
