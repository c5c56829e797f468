"""DOT: one cluster for each kind of layer, edges between them, and strings that cannot leave their quotes."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from fretsaw.ir import parse
from fretsaw.ir.errors import UsageError
from fretsaw.tools.report.dot import quoted, to_dot
from tests.tools.test_report_html import EVIL, model

STRING = r'"(?:[^"\\\n]|\\["\\n])*"'
LINE = re.compile(
    rf"(digraph|subgraph) {STRING} {{|}}|rankdir=TB;|label={STRING};|{STRING} -> {STRING};"
    rf"|(node|{STRING}) \[\w+=({STRING}|\w+)(, \w+=({STRING}|\w+))*\];"
)


def statements(dot: str) -> list[str]:
    """Lines of the text, each of which must be one whole statement of the small part of DOT that is written."""
    lines = [line.strip() for line in dot.splitlines()]
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert sum(line.endswith("{") for line in lines) == lines.count("}")
    return lines


def edges(dot: str) -> set[tuple[str, str]]:
    found = (re.fullmatch(rf"({STRING}) -> ({STRING});", line) for line in statements(dot))
    return {(m[1].strip('"'), m[2].strip('"')) for m in found if m}


def test_alike_layers_are_one_cluster() -> None:
    dot = to_dot(parse(model(3)))
    assert sum(line.startswith("subgraph") for line in statements(dot)) == 2
    assert 'label="layers 0-2 (x3, 3 nodes each)";' in statements(dot)
    assert edges(dot) == {
        ("in:x0", "n:n0"), ("n:n0", "n:l0"), ("in:x0", "n:x1"), ("n:l0", "n:x1"),
        ("n:x1", "n:n0"),  # from a layer to the next one
        ("n:x1", "n:y"), ("n:y", "out:y"),
    }  # fmt: skip


def test_one_layer_stands_between_its_neighbours() -> None:
    dot = to_dot(parse(model(4)), layer=1)
    boxes = [line for line in statements(dot) if "box3d" in line]
    assert [re.search(r'label="([^"]*)"', b)[1] for b in boxes] == [  # type: ignore[index]
        "layer 0", "layers 2-3 (x2, 3 nodes each)",
    ]  # fmt: skip
    assert edges(dot) == {
        ("in:x0", "box:0"), ("box:0", "n:n1"), ("box:0", "n:x2"), ("n:n1", "n:l1"), ("n:l1", "n:x2"),
        ("n:x2", "box:2"), ("box:2", "n:y"), ("n:y", "out:y"),
    }  # fmt: skip


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"there is no layer 9\n  hint  there are layers 0-1"):
        to_dot(parse(model(2)), layer=9)


@pytest.mark.parametrize("text", ['"];x', 'a\\"b', "end\\", "two\nlines", "\x1b[2J\x00", EVIL, "\ud800"])
def test_strings_stay_in_their_quotes(text: str) -> None:
    assert re.fullmatch(STRING, quoted(text))
    assert quoted(text).isprintable()


def test_effects_without_results_have_a_name_of_their_own() -> None:
    lines = "\n".join(f"  kv_append(%kv, %k, %k) {{layer = {n}}}  // m.layers.{n}.attn{n}" for n in range(2))
    graph = parse(f"graph @g(%k: f32[T, 2, 4], %kv: handle<kv_cache>) -> (%k) {{\n  dim T in [1, 8]\n{lines}\n}}")
    assert len([e for e in edges(to_dot(graph, layer=1)) if e[0] == "in:kv"]) == 2


@pytest.mark.parametrize("layer", [None, 1])
def test_graphviz_draws_it(layer: int | None) -> None:
    dot = shutil.which("dot")
    if dot is None:
        pytest.skip("Graphviz is not installed (Debian package graphviz)")
    text = to_dot(parse(model(3, path=EVIL.replace(" ", ""))), layer)
    done = subprocess.run([dot, "-Tsvg"], input=text, capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout.count('class="node"') == (6 if layer is None else 8)
