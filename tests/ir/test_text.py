"""The text form: exact round trip, errors with line and caret, references without data."""

from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.ir import Const, Graph, GraphBuilder, Loc, TensorType, parse, run, sym, to_text, verify
from fretsaw.ir.errors import ParseError, VerifyError

FULL = """graph @block(%x: f32[2*B + 1, 8], %kv: handle<kv_cache>) -> (%q, %k) {
  phase packed
  dim B in [1, 64]
  const %gain: f32[8]
  const %wq: f32[4, 8] = file("a.safetensors", 8, 128, f32[4, 8])
  const %wk: f32[2, 8] = concat((f32[1, 8] file("a", 8, 32, f32[1, 8])), (f32[1, 8] declared("z"))) {axis = 0}
  const %c: f32[3] = data([1.0, -inf, nan])
  const %i: i64[2, 1] = data([1, -2])
  const %e: bool[2] = data([true, false])
  const %d: f32[9] = data(sha256 "0123456789abcdef")
  const %t: i64[1, 2] = topk((f32[1, 4] declared("t"))) {k = 2} #1
  %n: f32[2*B + 1, 8] = rms_norm(%x, %gain) {eps = 1e-05}  // layers.0.input_layernorm (m.py:12) <a, b>
  %q: f32[2*B + 1, 4] = linear(%n, %wq)  // <a>
  %k: f32[2*B + 1, 2] = linear(%n, %wk)  // (x.py:1)
  %s: f32[2*B + 1, 4], %p: i64[2*B + 1, 4] = topk(%n) {k = 4}
  %r: f32[4*B + 2, 2, 2] = reshape(%n) {shape = [4*B + 2, 2, 2]}
  %u: f32[] = full() {shape = [], value = 1e+16}
  kv_append(%kv, %r, %r) {layer = 0}
}"""


def test_round_trip() -> None:
    graph = parse(FULL)
    assert to_text(graph) == FULL
    assert parse(to_text(graph)) == graph
    assert [n.loc for n in graph.nodes[:3]] == [
        Loc("layers.0.input_layernorm", "m.py:12", ("a", "b")), Loc(rules=("a",)), Loc(source="x.py:1"),
    ]  # fmt: skip


ERRORS = [
    (
        "linear(%n, %wq)",
        "linear(%m, %wq)",
        "%m is not defined before its use",
        13,
        "                                  ^",
    ),
    ("%k: f32[2*B + 1, 2] =", "%q: f32[2*B + 1, 2] =", "%q is defined twice", 14, "   ^"),
    ("f32[9]", "g32[9]", "there is no dtype g32", 10, "            ^"),
    ("{eps = 1e-05}", "{eps = 1e-05, eps = 2}", "attribute eps is given twice", 12, ""),
    ("{eps = 1e-05}", "{eps = }", "expected a dimension", 12, ""),
    ("data([1, -2])", "data([1])", "data must list the 2 elements of i64[2, 1]", 8, ""),
    ("dim B in [1, 64]", "dim B in [1, 64", "expected ']'", 3, ""),
    ("-> (%q, %k)", "-> (%q, %z)", "output %z is not defined", 1, ""),
    ("layer = 0}\n}", "layer = 0}", "the graph is not closed, expected '}'", 18, ""),
    ("layer = 0}\n}", "layer = 0}\n}\n}", "text after the end of the graph", 20, ""),
    ("const %gain: f32[8]", "const %gain: handle<x>", "a constant must be a tensor", 4, ""),
    ("-> (%q, %k) {", "-> (%q, %k) { x", "expected the end of the line", 1, ""),
    ("2*B + 1, 8], %kv", "2*B + 1.5, 8], %kv", "expected ','", 1, ""),
]


@pytest.mark.parametrize(("old", "new", "what", "line", "caret"), ERRORS)
def test_errors_point_at_the_place(old: str, new: str, what: str, line: int, caret: str) -> None:
    assert old in FULL
    with pytest.raises(ParseError) as error:
        parse(FULL.replace(old, new))
    assert error.value.what == what
    assert error.value.where.startswith(f"line {line}, column ")
    shown, mark = error.value.context.split("\n")
    assert mark.strip() == "^" and len(mark) <= len(shown) + 1
    assert not caret or mark.endswith(caret.strip()) and len(mark.rstrip()) > 1


def test_whole_error_text() -> None:
    with pytest.raises(ParseError) as error:
        parse("graph @g(%x: f32[2]) -> (%y) {\n  %y: f32[2] = neg(%z)\n}")
    assert str(error.value) == (
        "ParseError: %z is not defined before its use\n"
        "  at    line 2, column 21\n"
        "    |   %y: f32[2] = neg(%z)\n"
        "    |                     ^"
    )
    with pytest.raises(ParseError, match="the text is empty"):
        parse(" \n ")


def test_constants_come_from_the_caller_where_the_text_agrees() -> None:
    big = Const.of(np.arange(20, dtype=np.float32))
    text = to_text(Graph("g", (), {_value("w", big): big}, (), ()))
    assert 'data(sha256 "' in text
    found = parse(text, {"w": big})
    assert next(iter(found.consts.values())) is big
    other = Const.of(np.ones(20, dtype=np.float32))
    (unresolved,) = parse(text, {"w": other}).consts.values()
    with pytest.raises(VerifyError, match="the data of a constant is not here, only its digest"):
        unresolved.load()
    bare = "graph @g() -> () {\n  const %w: f32[20]\n}"
    assert next(iter(parse(bare, {"w": big}).consts.values())) is big
    with pytest.raises(VerifyError, match="constant %w was declared without data"):
        next(iter(parse(bare).consts.values())).load()
    seeded = [next(iter(parse(bare, seed=s).consts.values())).load() for s in (0, 0, 1)]
    assert (seeded[0] == seeded[1]).all() and (seeded[0] != seeded[2]).any()


def _value(name: str, const: Const):  # type: ignore[no-untyped-def]
    from fretsaw.ir import Value

    return Value(name, const.type)


def test_broken_graphs_read_and_print() -> None:
    line = '%y: f64[3] = nonsense(%x) {a = "b\\"\\\\\\nc", z = [1, [2.0, none], true]}'
    text = f"graph @g(%x: f32[2]) -> (%y) {{\n  {line}\n}}"
    graph = parse(text)
    assert to_text(graph) == text and dict(graph.nodes[0].attrs)["a"] == 'b"\\\nc'
    with pytest.raises(VerifyError, match="there is no op nonsense"):
        verify(graph)


def test_a_symbol_that_no_input_gives_is_named() -> None:
    graph = parse("graph @g(%x: f32[2*B]) -> (%x) {\n  dim B in [1, 2]\n}")
    with pytest.raises(VerifyError, match="no input has B as a whole axis"):
        run(graph, {"x": np.zeros(4, np.float32)})


names = st.text(string.ascii_letters + string.digits + "_.-/$+", min_size=1, max_size=12)
floats = st.floats(width=32)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.sampled_from(["neg", "exp", "add", "concat", "reshape", "softmax", "topk", "cast"]), max_size=12),
    weights=st.lists(floats, min_size=4, max_size=4),
    name=names, module=st.sampled_from(["", "model.layers.0", "a"]), source=st.sampled_from(["", "m.py:1"]),
    rules=st.lists(st.sampled_from(["r", "fold_x"]), max_size=2, unique=True), low=st.integers(0, 5),
)  # fmt: skip
def test_generated_graphs_round_trip_and_verify(
    rows: list[str], weights: list[float], name: str, module: str, source: str, rules: list[str], low: int
) -> None:
    build = GraphBuilder("generated", {"B": (low, low + 9)})
    x = build.input(name, TensorType("f32", (sym("B") * 2 + 1, 4)))
    build.input("size", TensorType("f32", (sym("B"),)))
    w = build.const("w", Const.of(np.array(weights, np.float32)))
    loc = Loc(module, source, tuple(rules))
    for op in rows:
        x = _grow(build, op, x, w, loc)
    graph = build.finish([x])
    verify(graph)
    text = to_text(graph)
    again = parse(text, {v.name: c for v, c in graph.consts.items()})
    assert again == graph and to_text(again) == text and to_text(parse(text)) == text
    assert [n.loc for n in again.nodes] == [n.loc for n in graph.nodes]
    shapes = ((3, 4), (1,))
    feed = {v.name: np.zeros(shape, np.float32) for v, shape in zip(graph.inputs, shapes, strict=True)}
    with np.errstate(all="ignore"):
        assert run(again, feed)[0].tobytes() == run(graph, feed)[0].tobytes()


def _grow(build: GraphBuilder, op: str, x, w, loc: Loc):  # type: ignore[no-untyped-def]
    shape = x.tensor.shape
    match op:
        case "add":
            return build.emit("add", x, w, loc=loc)
        case "concat":
            joined = build.emit("concat", x, x, axis=1, loc=loc)
            return build.emit("slice", joined, axis=1, start=2, end=6)
        case "reshape":
            return build.emit("reshape", build.emit("reshape", x, shape=(*shape, 1)), shape=shape, loc=loc)
        case "softmax":
            return build.emit("softmax", x, axis=1, loc=loc)
        case "topk":
            return build.emit_node("topk", [x], {"k": 4}, loc=loc).results[0]
        case "cast":
            return build.emit("cast", build.emit("cast", x, dtype="f64"), dtype="f32", loc=loc)
        case _:
            return build.emit(op, x, loc=loc)
