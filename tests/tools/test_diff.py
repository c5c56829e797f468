"""diff: what it calls a change, what it does not, by layer, and of artifacts everything beside the graph."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import pytest

from fretsaw.backends.artifact import write_container
from fretsaw.ir import Graph, parse
from fretsaw.passes.pipeline import run_pipeline
from fretsaw.tools import cli
from fretsaw.tools.diff.changes import changes
from fretsaw.tools.diff.group import grouped
from fretsaw.tools.diff.match import match
from tests.passes.llama_text import llama
from tests.tools.test_cli import MANIFEST


def model(layers: int = 4) -> str:
    """A small model as text: per layer a norm, three projections, attention and a gated MLP."""
    head = ["graph @m(%x: f32[B, S, 8]) -> (%y) {", "  phase canonical", "  dim B in [1, 4]", "  dim S in [1, 64]"]
    consts, nodes, h = [], [], "x"
    for i in range(layers):
        at, p = f"model.layers.{i}", f"model.layers.{i}."
        consts += [f"  const %{p}norm.weight: f32[8]"]
        consts += [f"  const %{p}self_attn.{n}_proj.weight: f32[8, 8]" for n in "qkvo"]
        consts += [f"  const %{p}mlp.{n}_proj.weight: f32[16, 8]" for n in ("gate", "up")]
        consts += [f"  const %{p}mlp.down_proj.weight: f32[8, 16]"]
        nodes += [f"  %n{i}: f32[B, S, 8] = rms_norm(%{h}, %{p}norm.weight) {{eps = 1e-05}}  // {at}.norm"]
        for n in "qkv":
            nodes += [
                f"  %{n}{i}: f32[B, S, 8] = linear(%n{i}, %{p}self_attn.{n}_proj.weight)  // {at}.self_attn.{n}_proj",
                f"  %{n}h{i}: f32[B, S, 2, 4] = reshape(%{n}{i}) {{shape = [B, S, 2, 4]}}  // {at}.self_attn",
            ]
        nodes += [
            f"  %a{i}: f32[B, S, 2, 4] = attention(%qh{i}, %kh{i}, %vh{i}) {{scale = 0.5}}  // {at}.self_attn",
            f"  %f{i}: f32[B, S, 8] = reshape(%a{i}) {{shape = [B, S, 8]}}  // {at}.self_attn",
            f"  %o{i}: f32[B, S, 8] = linear(%f{i}, %{p}self_attn.o_proj.weight)  // {at}.self_attn.o_proj",
            f"  %r{i}: f32[B, S, 8] = add(%{h}, %o{i})  // {at}",
            f"  %g{i}: f32[B, S, 16] = linear(%r{i}, %{p}mlp.gate_proj.weight)  // {at}.mlp.gate_proj",
            f"  %s{i}: f32[B, S, 16] = silu(%g{i})  // {at}.mlp.act_fn",
            f"  %u{i}: f32[B, S, 16] = linear(%r{i}, %{p}mlp.up_proj.weight)  // {at}.mlp.up_proj",
            f"  %m{i}: f32[B, S, 16] = mul(%s{i}, %u{i})  // {at}.mlp",
            f"  %d{i}: f32[B, S, 8] = linear(%m{i}, %{p}mlp.down_proj.weight)  // {at}.mlp.down_proj",
            f"  %h{i}: f32[B, S, 8] = add(%r{i}, %d{i})  // {at}",
        ]
        h = f"h{i}"
    return "\n".join([*head, *consts, *nodes, f"  %y: f32[B, S, 8] = neg(%{h})  // model.head", "}"]) + "\n"


def edited(*changes: tuple[str, str]) -> str:
    text = model()
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def said(before: str | Graph, after: str | Graph) -> list[str]:
    graphs = [parse(g) if isinstance(g, str) else g for g in (before, after)]
    return [str(line) for line in grouped(changes(match(*graphs)))]


def test_equal_and_renamed_graphs_have_no_differences() -> None:
    renamed = model()
    for letter in "nqkvafordgsumh":
        for i in range(4):
            renamed = renamed.replace(f"%{letter}{i}:", f"%{letter}_{i}_new:")
            for end in (",", ")"):
                renamed = renamed.replace(f"%{letter}{i}{end}", f"%{letter}_{i}_new{end}")
    parse(renamed)
    assert renamed != model()
    assert said(model(), model()) == said(model(), renamed) == said(renamed, model()) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ([("%vh2) {scale = 0.5}", "%vh2) {scale = 0.5, window = 1920}")], ["layer 2 attention: window 0 -> 1920"]),
        ([("eps = 1e-05", "eps = 1e-06")], ["layers 0-3 rms_norm: eps 1e-05 -> 1e-06"]),
        ([("silu(%g0)", "gelu(%g0)")], ["layer 0 mlp.act_fn: silu -> gelu"]),
        (
            [("const %model.layers.3.mlp.down_proj.weight: f32[8, 16]", "const %model.layers.3.mlp.down_proj.weight: "
              "f32[8, 16] = data(sha256 \"ab\")")],
            ["layer 3 mlp.down_proj linear: weight data changed"],
        ),
        ([("mul(%s1, %u1)", "mul(%u1, %s1)")], [
            "layer 1 mul: a reads linear of mlp.up_proj instead of silu of mlp.act_fn",
            "layer 1 mul: b reads silu of mlp.act_fn instead of linear of mlp.up_proj",
        ]),
        ([("neg(%h3)", "neg(%r3)")], ["model.head neg: x reads add instead of add"]),
        ([("dim S in [1, 64]", "dim S in [1, 128]")], ["symbol S [1, 64] -> [1, 128]"]),
        ([("-> (%y)", "-> (%h3)")], ["output 0 is computed by another node"]),
    ],
)  # fmt: skip
def test_one_change_is_one_line(change: list[tuple[str, str]], expected: list[str]) -> None:
    assert said(model(), edited(*change)) == expected


def test_a_removed_node_and_an_added_one() -> None:
    without = edited(("  %s1: f32[B, S, 16] = silu(%g1)  // model.layers.1.mlp.act_fn\n", ""), ("mul(%s1,", "mul(%g1,"))
    assert said(model(), without) == ["layer 1 mlp.act_fn: removed silu"]
    assert said(without, model()) == ["layer 1 mlp.act_fn: added silu"]


def test_merges_of_the_pipeline_are_told_as_merges() -> None:
    graph = parse(model(), seed=0)
    fused = run_pipeline(graph, ("fused",)).graph
    merged = [
        "phase canonical -> fused",
        "layers 0-3 self_attn: linear q_proj + k_proj + v_proj -> linear qkv_proj (merged)",
        "layers 0-3 mlp: linear gate_proj + up_proj -> linear gate_up_proj (merged)",
    ]
    assert said(graph, fused) == merged
    assert said(fused, graph)[1:] == [
        "layers 0-3 self_attn: linear qkv_proj -> linear q_proj + k_proj + v_proj (split)",
        "layers 0-3 mlp: linear gate_up_proj -> linear gate_proj + up_proj (split)",
    ]


def test_raising_is_told_as_replacement() -> None:
    graph = parse(llama(3), seed=0)
    lines = said(graph, run_pipeline(graph, ("canonical",)).graph)
    assert any("-> rms_norm" in line for line in lines) and any("rope" in line for line in lines)


def test_exit_codes_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a.fir", tmp_path / "b.fir"
    a.write_text(model())
    b.write_text(edited(("%vh2) {scale = 0.5}", "%vh2) {scale = 0.25}")))
    assert cli.run(["diff", str(a), str(a)]) == 0
    assert capsys.readouterr().out == "no differences\n"
    assert cli.run(["diff", str(a), str(b)]) == 1
    assert capsys.readouterr().out == "graph (canonical)\n  layer 2 attention: scale 0.5 -> 0.25\n"
    assert cli.run(["diff", str(a), str(b), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["equal"] and told["graph"] == [
        {
            "kind": "changed", "stack": "model.layers", "layers": [2], "place": "attention",
            "text": "scale 0.5 -> 0.25", "count": 1,
        }
    ]  # fmt: skip
    assert cli.run(["diff", str(a)]) == 2
    assert cli.run(["diff", str(a), str(tmp_path / "none.fir")]) == 7
    b.write_text("graph @m(")
    assert cli.run(["diff", str(a), str(b)]) == 4
    capsys.readouterr()


def artifact(path: Path, text: str, manifest: Mapping[str, object], error: float = 1e-7, weights: bytes = b"") -> Path:
    check = {"status": "passed", "max_error": error}
    entry = {"name": "raise_rope", "phase": "canonical", "keeps": "algebra", "hit": 6, "check": check}
    sections = [
        ("ir/canonical", [text.encode()]),
        ("evidence.json", [json.dumps({"passes": [entry]}).encode()]),
        ("program", [b"{}"]),
        ("code/llvm-x86-64-v3", [b"not an ELF file"]),
        ("weights", [weights or bytes(64)]),
    ]
    write_container(path, manifest, sections)
    return path


def test_artifacts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = deepcopy(MANIFEST)
    kv, memory = other["kv"], other["memory"]
    assert isinstance(kv, dict) and isinstance(memory, dict)
    kv["page_tokens"], memory["workspace_bytes"] = 32, 200
    a = artifact(tmp_path / "a.fsaw", model(), MANIFEST)
    b = artifact(tmp_path / "b.fsaw", model(), other, 2e-7, bytes(63) + b"\1")
    assert cli.run(["diff", str(a), str(a)]) == 0
    capsys.readouterr()
    assert cli.run(["diff", str(a), str(b)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "manifest",
        "  kv.page_tokens 64 -> 32",
        "  memory.workspace_bytes 100 -> 200",
        "evidence",
        "  passes[raise_rope].check.max_error 1e-07 -> 2e-07",
        "weights",
        "  w: other values",
    ]


def test_native_code_and_its_compilers_are_not_loaded(tmp_path: Path) -> None:
    a = artifact(tmp_path / "a.fsaw", model(), MANIFEST)
    program = (
        f"import sys; from fretsaw.tools.cli import run; run(['diff', {str(a)!r}, {str(a)!r}]); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert "fretsaw.tools.diff.report" in modules
    assert not {"torch", "tvm", "tvm_ffi", "transformers"} & set(modules)
