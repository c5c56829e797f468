"""Layers are found by module path, alike ones are put together, and a difference of any kind keeps them apart."""

from __future__ import annotations

import pytest

from fretsaw.ir import parse
from fretsaw.tools.report.layers import blocks_of, folded_paths, groups_of, layer_of, ranges

LAYER = """
  %a{n}: f32[S, 8] = rms_norm(%x{n}, %g{n}) {{eps = 1e-05}}  // m.layers.{n}.norm
  %b{n}: f32[S, 8] = linear(%a{n}, %w{n})  // m.layers.{n}.mlp
  %x{m}: f32[S, 8] = {op}(%{left}{n}, %{right}{n})  // m.layers.{n}{rule}"""


def model(**odd: str) -> str:
    """Three layers and a head; ``odd`` changes something in layer 1."""
    consts = "".join(f"\n  const %g{n}: f32[8]\n  const %w{n}: f32[8, 8]" for n in range(3))
    usual = {"op": "add", "left": "x", "right": "b", "rule": ""}
    layers = "".join(LAYER.format(n=n, m=n + 1, **(usual | (odd if n == 1 else {}))) for n in range(3))
    return f"graph @g(%x0: f32[S, 8]) -> (%y) {{\n  dim S in [1, 8]{consts}{layers}\n  %y: f32[S, 8] = silu(%x3)\n}}"


def labels(text: str, *, rules: bool = False) -> list[str]:
    return [group.label for group in groups_of(parse(text), rules=rules)]


def test_alike_layers_are_one_group() -> None:
    assert labels(model().replace("silu(%x3)", "silu(%x3)  // head")) == ["layers 0-2", "head"]


def test_a_node_without_a_path_belongs_to_what_made_its_operand() -> None:
    blocks = blocks_of(parse(model()))
    assert [(b.label, [n.op for n in b.nodes]) for b in blocks][-1] == (
        "layer 2",
        ["rms_norm", "linear", "add", "silu"],
    )


@pytest.mark.parametrize("odd", [{"op": "mul"}, {"left": "b"}, {"left": "a"}])
def test_another_op_or_another_wiring_is_another_group(odd: dict[str, str]) -> None:
    graph = parse(model(**odd).replace("silu(%x3)", "silu(%x3)  // head"))
    assert [g.label for g in groups_of(graph)] == ["layers 0, 2", "layer 1", "head"]
    assert [g.block.label for g in groups_of(graph)] == ["layer 0", "layer 1", "head"]


def test_other_attributes_or_types_are_another_group() -> None:
    text = model().replace("silu(%x3)", "silu(%x3)  // head")
    assert labels(text) == ["layers 0-2", "head"]
    assert labels(text.replace("1e-05", "1e-06", 1)) == ["layer 0", "layers 1-2", "head"]


def test_the_number_of_the_layer_as_an_attribute_is_no_difference() -> None:
    lines = "\n".join(f"  kv_append(%kv, %k, %k) {{layer = {n}}}  // m.layers.{n}.attn" for n in range(3))
    text = f"graph @g(%k: f32[T, 2, 4], %kv: handle<kv_cache>) -> (%k) {{\n  dim T in [1, 8]\n{lines}\n}}"
    assert labels(text) == ["layers 0-2"]


def test_rules_tell_layers_apart_only_when_asked() -> None:
    text = model(rule=" <some_rule>").replace("silu(%x3)", "silu(%x3)  // head")
    assert labels(text) == ["layers 0-2", "head"]
    assert labels(text, rules=True) == ["layers 0, 2", "layer 1", "head"]


def test_two_stacks_are_named() -> None:
    text = model().replace("m.layers.2", "other.blocks.0")
    assert labels(text) == ["m.layers 0-1", "other.blocks 0"]


def test_every_node_is_in_one_block() -> None:
    graph = parse(model(op="mul"))
    nodes = [node for block in blocks_of(graph) for node in block.nodes]
    assert sorted(map(id, nodes)) == sorted(map(id, graph.nodes))


def test_names_of_paths() -> None:
    assert layer_of("model.layers.3.mlp.experts.7.up") == ("model.layers", 3)
    assert layer_of("lm_head") is None
    assert layer_of("3.mlp") is None, "a bare number is a module of a Sequential, not a layer of a stack"
    assert layer_of("m.²") is None, "digits that int() cannot read"
    assert ranges([4, 2, 3, 9]) == "2-4, 9"
    paths = ["m.layers.0.mlp", "m.layers.1.mlp", "m.layers.1", "lm_head", "lm_head"]
    assert folded_paths(paths) == {"m.layers.{0-1}.mlp": 2, "m.layers.1": 1, "lm_head": 2}
