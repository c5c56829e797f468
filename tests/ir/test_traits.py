"""Traits: an op that is declared is picked up by passes, checks, backends and tools, none of which knows its name."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from fretsaw.backends.program.dense_steps import full_steps
from fretsaw.backends.program.specs.select import OPS
from fretsaw.ir import Graph, catalogue, parse, run, to_text, verify
from fretsaw.ir.document import op_table
from fretsaw.ir.errors import VerifyError
from fretsaw.ir.op import _CATALOGUE, Array, OpDef, define_op
from fretsaw.ir.ops.cache import OF_LENGTHS
from fretsaw.ir.ops.elementwise import _same
from fretsaw.ir.ops.select import GROUPS, _causal, _groups_shape, define_selector
from fretsaw.ir.phases import legal_ops
from fretsaw.ir.traits import PHASES, Access, Full, Legal
from fretsaw.ir.views import data_flow
from fretsaw.passes.api import apply
from fretsaw.passes.canonical.cse import cse
from fretsaw.passes.evidence.memory import peak_bytes
from fretsaw.passes.kit.cost import cost
from fretsaw.passes.packed.pack_tokens import pack_tokens
from fretsaw.tools.fuzz.generate import random_graph
from fretsaw.tools.report.drawing import kind


@pytest.fixture
def added() -> Iterator[None]:
    """The catalogue may grow; what a test declares goes with it."""
    before = dict(_CATALOGUE)
    yield
    _CATALOGUE.clear()
    _CATALOGUE.update(before)


def softsign(**traits: object) -> OpDef:
    """An elementwise op that nobody has heard of."""

    def reference(arrays: Sequence[Array], attrs: object) -> Sequence[Array]:
        return [arrays[0] / (1 + np.abs(arrays[0]))]

    return define_op(
        "softsign", "x", shape=_same, reference=reference, doc="x / (1 + |x|).", elementwise=True,
        example="softsign(%x)", **traits,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.usefixtures("added")
def test_an_elementwise_op_is_known_everywhere() -> None:
    softsign()
    text = "graph @g(%x: f32[2]) -> (%y) {\n  %y: f32[2] = softsign(%x)\n}"
    graph = parse(text)
    assert to_text(graph) == text and np.allclose(run(graph, {"x": np.array([1, -3], np.float32)})[0], [0.5, -0.75])
    assert cost(graph).flops == 2 and "| `softsign` | x |" in op_table() and kind("softsign") == "arithmetic"
    assert all("softsign" in legal_ops(phase) for phase in PHASES)
    assert any(random_graph(random.Random(seed)).count("softsign") for seed in range(200))


@pytest.mark.usefixtures("added")
def test_packing_reads_how_an_op_treats_rows() -> None:
    def model(op: str) -> Graph:
        text = "graph @g(%input_ids: i64[B, S], %positions: i64[B, S]) -> (%y) {\n phase fused\n dim B in [1, 4]\n"
        text += " dim S in [1, 9]\n const %t: f32[7, 4]\n const %w: f32[7, 4]\n"
        text += " %e: f32[B, S, 4] = embedding(%input_ids, %t)\n"
        text += " %v: f32[B, S, 2, 2] = reshape(%e) {shape = [B, S, 2, 2]}\n"
        text += " %a: f32[B, S, 2, 2] = attention(%v, %v, %v) {scale = 1.0}\n"
        text += " %c: f32[B, S, 4] = reshape(%a) {shape = [B, S, 4]}\n"
        return parse(text + f" %d: f32[B, S, 4] = {op}(%c)\n %y: f32[B, S, 7] = linear(%d, %w)\n}}")

    rows: dict[str, str] = {"halves": "each", "mixes": ""}
    for name, how in rows.items():
        define_op(
            name, "x", shape=_same, reference=lambda a, at: [a[0] / 2], doc="Half.", example=f"{name}(%x)",
            rows=how,  # type: ignore[arg-type]
        )  # fmt: skip
    after, _ = apply(pack_tokens, model("halves"))
    assert after.count("halves") == 1 and after.phase == "packed"
    with pytest.raises(Exception, match="no packed form is known for this op"):
        apply(pack_tokens, model("mixes"))


CHOSEN = """
graph @g(%q: f32[T, 2, 4], %kv: handle<kv_cache>) -> (%y) {
  phase packed
  dim T in [1, 64]
  dim QB in [1, 64]
  dim KB in [1, 64]
  %m: bool[QB, 2, KB] = even_blocks(%kv) {groups = 2}
  kv_append(%kv, %q, %q) {layer = 0}
  %n: bool[QB, 2, KB] = even_blocks(%kv) {groups = 2}
  %u: bool[QB, 2, KB] = union_blocks(%m, %n)
  %idx: i32[QB, 2, KB], %cnt: i32[QB, 2] = compact_blocks(%u)
  %y: f32[T, 2, 4] = block_attention(%kv, %q, %idx, %cnt) {decode = true, layer = 0, scale = 0.5, value_size = 4}
}"""


def even_blocks(promise: Full, reads: tuple[Access, ...]) -> OpDef:
    """A selector that nobody has heard of."""
    return define_selector(
        "even_blocks", "kv", shape=_groups_shape(), reference=_causal, attrs=GROUPS, reads=reads, doc="Every second.",
        flops=lambda operands, results, attrs: 0, example="even_blocks(%kv) {groups = 2}",
        full_rows=lambda attrs, masks: promise,
    )  # fmt: skip


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize(("part", "merged"), [(OF_LENGTHS, True), ((Access("kv"),), False)])
def test_a_selector_is_merged_where_no_write_is_between(part: tuple[Access, ...], merged: bool) -> None:
    """Lengths stay in a step; a read of the whole cache sees what is appended."""
    even_blocks(Full(), part)
    graph = parse(CHOSEN)
    after, _ = apply(cse, graph)
    assert after.count("even_blocks") == 2 - merged
    assert ((1, 2) in data_flow(graph).edges) == (not merged)


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("promise", [Full(), Full(until=128), Full(prompts=True), Full(512, True, True)])
def test_a_selector_says_which_rows_it_keeps_whole(promise: Full) -> None:
    even_blocks(promise, OF_LENGTHS)
    assert full_steps(parse(CHOSEN)) == promise


@pytest.mark.usefixtures("added")
def test_a_selector_is_legal_where_it_says() -> None:
    even_blocks(Full(), OF_LENGTHS)
    assert [phase for phase in PHASES if "even_blocks" in legal_ops(phase)] == ["packed"]
    text = CHOSEN.replace("phase packed", "phase fused")
    with pytest.raises(VerifyError, match="even_blocks is not legal in phase fused: blocks of a step exist only after"):
        verify(parse(text))


@pytest.mark.usefixtures("added")
def test_phases_and_scratch_are_those_of_the_declaration() -> None:
    legal = Legal(last="canonical", why="it is part of a norm", hint="look for the norm")
    softsign(legal=legal, scratch=lambda operands, results, attrs, item: 1000 * item)
    graph = parse("graph @g(%x: f32[2]) -> (%y) {\n  %y: f32[2] = softsign(%x)\n}")
    plain = parse("graph @g(%x: f32[2]) -> (%y) {\n  %y: f32[2] = neg(%x)\n}")
    assert peak_bytes(graph, {}) == peak_bytes(plain, {}) + 4000
    with pytest.raises(VerifyError, match="softsign is not legal in phase fused: it is part of a norm") as caught:
        verify(parse("graph @g(%x: f32[2]) -> (%y) {\n  phase fused\n  %y: f32[2] = softsign(%x)\n}"))
    assert caught.value.hint == "look for the norm"


def test_every_selector_has_a_kernel_and_every_kernel_a_selector() -> None:
    assert {name for name, op in catalogue().items() if op.kind == "selector"} == set(OPS)


def test_traits_name_slots_and_attributes_that_exist() -> None:
    for op in catalogue().values():
        slots = {s.rstrip("?*") for s in op.slots}
        named = {*op.handles, *op.indices, *filter(None, op.indices.values()), *filter(None, [op.outside])}
        assert named <= slots, op.name
        assert {a.by for a in (*op.reads, *op.writes) if a.by} <= set(op.attrs), op.name
        assert op.rows != "axis" or "axis" in op.attrs, op.name


def test_a_range_of_phases_has_an_order() -> None:
    with pytest.raises(ValueError, match="phase packed comes after fused"):
        Legal("packed", "fused")
