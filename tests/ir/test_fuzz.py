"""Generated graphs round trip; damage ends in our own errors. The long run is ``fretsaw.tools.bench.ir_fuzz``."""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from fretsaw.ir import (
    Attr,
    Const,
    DeclaredData,
    Graph,
    OpData,
    TensorType,
    Value,
    catalogue,
    parse,
    sym,
    to_text,
    verify,
)  # fmt: skip
from fretsaw.ir.consts import ArrayData, FileData
from fretsaw.ir.errors import ParseError, VerifyError
from fretsaw.tools.fuzz import properties
from fretsaw.tools.fuzz.generate import random_graph
from fretsaw.tools.fuzz.ops import emitters
from fretsaw.tools.fuzz.properties import Broken, check_graph, check_text, check_text_of, deadline, run_case
from tests.graphs import graphs

REGRESSIONS = sorted((Path(__file__).parents[1] / "regressions" / "ir").glob("*.json"))


def test_every_op_is_generated() -> None:
    assert set(emitters()) == set(catalogue()), "tools/fuzz/ops.py: say how to make operands of the new op"
    seen = Counter(n.op for seed in range(600) for n in random_graph(random.Random(seed)).nodes)
    assert set(seen) == set(catalogue())


def test_two_thousand_graphs_and_their_damage() -> None:
    accepted = read = 0
    for seed in range(2000):
        a, r, _ = run_case(seed, mutations=1)
        accepted, read = accepted + a, read + r
    assert 100 < accepted < 1900 and 100 < read < 1900  # damage is neither always fatal nor never


@settings(max_examples=60, deadline=None)
@given(graph=graphs())
def test_generated_graphs_round_trip(graph: Graph) -> None:
    check_graph(graph)


@pytest.mark.parametrize("path", REGRESSIONS, ids=[p.stem for p in REGRESSIONS])
def test_texts_that_once_failed(path: Path) -> None:
    with deadline(properties.LIMIT):
        check_text(json.loads(path.read_text())["text"])


def test_the_properties_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = random_graph(random.Random(3))
    with pytest.raises(Broken, match=r"parse\(to_text\(g\)\) differs from g"):
        check_text_of(graph, to_text(replace(graph, name="other")))
    with pytest.raises(Broken, match="no answer within"), deadline(0.01):
        time.sleep(1)
    with monkeypatch.context() as patch:
        patch.setattr(properties, "parse", lambda text, consts=None: 1 / 0)
        with pytest.raises(Broken, match="ZeroDivisionError"):
            run_case(0)
    with monkeypatch.context() as patch:
        patch.setattr(properties, "verify", _refuse)
        with pytest.raises(Broken, match="a well-typed graph is refused: no"):
            run_case(0)


def _refuse(graph: Graph) -> None:
    raise VerifyError("no")


def one(op: str, *operands: str, attrs: str = "", result: str = "f32[2]") -> str:
    reads = ", ".join(f"%{o}" for o in operands)
    return f"graph @g(%x: f32[2]) -> (%y) {{\n  %y: {result} = {op}({reads}) {attrs}\n}}"


LIMITS = [
    ("9" * 19 + "9", "an integer must fit 64 bits"),
    ("-" + "9" * 5000, "an integer must fit 64 bits"),
]


@pytest.mark.parametrize(("number", "what"), LIMITS)
def test_integers_beyond_64_bits(number: str, what: str) -> None:
    with pytest.raises(ParseError) as error:
        parse(f"graph @g() -> () {{\n  dim B in [0, {number}]\n}}")
    assert error.value.what == what


TEXTS = [
    (one("exp", "x", result=f"f32[{'9' * 5000}]"), "a dimension of 5000 characters; at most 1000 are read"),
    (one("exp", "x", result="f32[9999999999999999999]"), "a dimension and its coefficients must fit 64 bits"),
    (one("exp", "x", result=f"f32[{'B*' * 300}B]"), "not a dimension: " + repr("B*" * 300 + "B")),
    (one("full", attrs="{shape = " + "[" * 5000), "lists are nested over 100 deep"),
    (
        "graph @g() -> () {\n  const %c: f32[2] = " + "neg((f32[2] " * 300,
        "the data of a constant is nested over 100 deep",
    ),
    ("graph @g() -> () {\n  const %c: u8[1] = data([256])\n}", "256 is no element of u8[1]"),
    ("graph @g() -> () {\n  const %c: bool[1] = data([1])\n}", "1 is no element of bool[1]"),
    ('graph @g() -> () {\n  const %c: f32[1] = data(["a"])\n}', '"a" is no element of f32[1]'),
    (one("f", "x", attrs='{a = "\\u{110000}"}'), "an escape names no character"),
    ("graph @a\0() -> () {\n}", "expected a name, found a character that cannot be printed"),
]


@pytest.mark.parametrize(("text", "what"), TEXTS, ids=range(len(TEXTS)))
def test_bounds_of_the_text_form(text: str, what: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ParseError) as error:
        parse(text)
    assert error.value.what == what and time.perf_counter() - start < 1


X = Value("x", TensorType("f32", (2,)))
GRAPH = parse(one("cast", "x", attrs='{dtype = "f32"}'))
NODE = GRAPH.nodes[0]


def const(data: object, kind: TensorType = X.tensor) -> Graph:
    return replace(GRAPH, consts={Value("c", kind): Const(kind, data)})  # type: ignore[arg-type]


def attrs(*pairs: tuple[str, object], op: str = "full", shape: tuple[int, ...] = (2,)) -> Graph:
    out = Value("y", TensorType("f32", shape))
    found: tuple[tuple[str, Attr], ...] = pairs  # type: ignore[assignment]
    return replace(GRAPH, nodes=(replace(NODE, op=op, operands=(), attrs=found, results=(out,)),))


BROKEN = [
    (replace(GRAPH, name="a b"), 1, "'a b' is no name: the text form cannot hold it"),
    (replace(GRAPH, inputs=(X, Value("a\nb", X.type))), 1, "'a\\nb' is no name: the text form cannot hold it"),
    (replace(GRAPH, dims={"inf": (0, 1)}), 7, "'inf' is no name for a symbol"),
    (replace(GRAPH, dims={"B": (0, 2**63)}), 7, "symbol B has no valid range: [0, 9223372036854775808]"),
    (replace(GRAPH, inputs=(X, Value("z", TensorType("f32", (-1,))))), 7, "%z: a size is negative or over 64 bits"),
    (replace(GRAPH, inputs=(X, Value("z", TensorType("q7", ())))), 7, "%z: there is no dtype q7"),  # type: ignore[arg-type]
    (const(ArrayData(np.zeros(3, np.float32))), 9, "constant %c is f32[2], its data is float32[3]"),
    (const(ArrayData(np.zeros(2, np.float64))), 9, "constant %c is f32[2], its data is float64[2]"),
    (const(FileData(Path("w"), 0, 9, "f32", (2,))), 9, "constant %c is f32[2], its data has 9 bytes"),
    (const(DeclaredData("c", TensorType("f64", (2,)))), 9, "constant %c is f32[2], its data is declared f64[2]"),
    (const(OpData("nonsense", (), ())), 9, "constant %c cannot be computed: there is no op nonsense"),
    (const(OpData("iota", (), (("size", 2),))), 9, "constant %c is f32[2], iota gives i64[2]"),
    (
        attrs(("shape", (2,)), ("value", 2**63)), 6,
        "full: attribute value holds what is no attribute value, or an integer over 64 bits",
    ),
    (attrs(("shape", ("a",)), ("value", 1)), 6, "full: attribute shape must be a list of sizes, is ('a',)"),
    (
        attrs(("shape", (2,)), ("value", sym("nan"))), 6,
        "full: attribute value holds what is no attribute value, or an integer over 64 bits",
    ),
    (
        replace(GRAPH, nodes=(replace(NODE, op="concat", operands=(), attrs=(("axis", 0),)),)), 6,
        "concat: cannot take these attributes",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "number", "what"), BROKEN, ids=range(len(BROKEN)))
def test_what_fuzzing_found_in_the_verifier(graph: Graph, number: int, what: str) -> None:
    assert to_text(graph)
    with pytest.raises(VerifyError) as error:
        verify(graph)
    assert error.value.what == f"{what} (invariant {number})"


def test_numbers_that_are_equal_and_print_differently() -> None:
    integer = parse(one("rms_norm", "x", attrs="{eps = 1.0}"))
    node = replace(integer.nodes[0], attrs=(("eps", 1),))
    with pytest.raises(VerifyError, match="attributes are not in normal form"):
        verify(replace(integer, nodes=(node,)))


def test_nan_is_equal_to_itself() -> None:
    graph = parse(one("full", attrs="{shape = [2], value = nan}"))
    verify(graph)
    assert parse(to_text(graph)) == graph
    odd = np.array([np.nan, -np.nan], np.float32)
    assert "data(sha256" in to_text(replace(GRAPH, consts={Value("c", X.type): Const.of(odd)}))
    assert "data([nan, nan])" in to_text(
        replace(GRAPH, consts={Value("c", X.type): Const.of(np.array([math.nan] * 2, np.float32))})
    )


def test_strings_and_locations_with_any_character() -> None:
    text = 'a\n\r\u2028\0\ud800\\"'
    graph = replace(GRAPH, nodes=(replace(NODE, op="nonsense", attrs=(("s", text),)),))
    shown = to_text(graph)
    assert shown.isascii() and dict(parse(shown).nodes[0].attrs)["s"] == text
    for module in ("a b", "x (y) <z>", "<a,b>", "//", "a\nb", "(" * 5000):
        there = to_text(replace(GRAPH, nodes=(replace(NODE, loc=replace(NODE.loc, module=module)),)))
        assert to_text(parse(there)) == there


def test_products_of_sums_have_a_limit() -> None:
    total = sym("a0")
    for i in range(1, 12):
        total = total + sym(f"a{i}")  # type: ignore[assignment]
    with pytest.raises(ValueError, match="a dimension has too many terms"):
        for _ in range(20):
            total = total * total  # type: ignore[assignment]
