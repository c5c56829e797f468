"""``fretsaw inspect``: what each view shows, and that no file from outside brings a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fretsaw.backends.artifact import write_container
from fretsaw.tools import cli
from fretsaw.tools.report.evidence import read_evidence

COST = {"flops": 2_000_000, "weight_bytes": 4_000, "activation_bytes": 700, "parameters": 1_000}
RECORD: dict[str, Any] = {
    "name": "raise_rope", "phase": "canonical", "keeps": "algebra", "hit": 2, "demanded": 2, "sweeps": 2,
    "sites": ["model.layers.0.attn", "model.layers.1.attn"],
    "declined": [["%a", "add", "model.layers.1", "no rotation before it"]],
    "nodes_before": 20, "nodes_after": 8, "origin": "plugin my.py", "options": {"strength": 2, "mode": "fast"},
    "check": {"status": "passed", "changed": 1, "max_error": 1.5e-7, "max_error_f64": 1e-16, "bound_f64": 1e-12,
              "mode": "whole", "blocks": 1},
    "cost_before": COST, "cost_after": COST | {"flops": 1_500_000},
}  # fmt: skip
GRAPH = """graph @tiny(%x: f32[S, 4]) -> (%y) {
  dim S in [1, 64]
  const %w: f32[4, 4] = data(sha256 "0123456789abcdef")
  %a: f32[S, 4] = linear(%x, %w)  // model.layers.0.mlp
  %b: f32[S, 4] = linear(%a, %w)  // model.layers.1.mlp
  %y: f32[S, 4] = silu(%b)  // head <some_rule>
}
"""
Write = Callable[..., Path]


def manifest_of(records: list[dict[str, Any]]) -> dict[str, Any]:
    from tests.tools.test_cli import MANIFEST

    listed = [{"name": r["name"], "phase": r["phase"], "keeps": r["keeps"], "options": {}, "hit": r["hit"],
               "declined": len(r["declined"])} for r in records]  # fmt: skip
    return {**MANIFEST, "passes": listed}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an artifact with these records, or with this text as evidence."""

    def make(*records: dict[str, Any], evidence: str | None = None, **changes: Any) -> Path:
        path = tmp_path / "model.fsaw"
        text = json.dumps({"passes": list(records)}) if evidence is None else evidence
        sections = [
            ("ir/captured", [GRAPH.encode()]),
            ("ir/canonical", [GRAPH.replace("dim S", "phase canonical\n  dim S").encode()]),
            ("evidence.json", [text.encode("utf-8", "surrogatepass")]),
            ("program", [b"{}"]),
            ("code/llvm-x86-64-v3", [b"not an ELF file"]),
            ("weights", [bytes(64)]),
        ]
        write_container(path, {**manifest_of(list(records)), **changes}, sections)
        return path

    return make


def show(path: Path, *args: str) -> int:
    return cli.run(["inspect", str(path), *args])


def test_passes_in_lines(write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert show(write(RECORD)) == 0
    lines = [[cell.strip() for cell in line.split("│")][1:-1] for line in capsys.readouterr().out.splitlines()]
    check = "passed (mode whole, max_error 1.5e-07, max_error_f64 1e-16, bound_f64 1e-12)"
    assert ["canonical", "raise_rope", "algebra", "2", "2", "1", "20 → 8", check] in lines
    assert ["", "plugin my.py", "", "", "", "", "", ""] in lines
    assert ["", "strength = 2, mode = fast", "", "", "", "", "", ""] in lines
    assert ["raise_rope", "2.00 M → 1.50 M (-25.0 %)", "4.00 kB", "700 B", "1.00 k"] in lines


@pytest.mark.parametrize(
    ("statuses", "line"),
    [
        (["unchecked: --no-check", "unchecked: --no-check"], "unchecked: compiled with --no-check"),
        (["off", "off"], "unchecked: compiled with --no-check"),
        (["passed", "passed"], "checks: 2 of 2 passes passed"),
        (["passed", "unchecked: too large (12 parameters)"], "checks: 1 of 2 passes passed, 1 unchecked: too large"),
        (["passed", ""], "checks: 1 of 2 passes passed, 1 no check written down"),
    ],
)
def test_the_line_on_the_checks(
    write: Write, capsys: pytest.CaptureFixture[str], statuses: list[str], line: str
) -> None:
    assert show(write(*({**RECORD, "check": {"status": s}} for s in statuses))) == 0
    assert capsys.readouterr().out.splitlines()[-1] == line


def test_artifacts_of_before_have_neither_origin_nor_cost(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    old = {k: v for k, v in RECORD.items() if k not in ("origin", "options", "cost_before", "cost_after")}
    assert show(write(old), "--pass", "raise_rope") == 0
    out = capsys.readouterr().out
    assert "not written down" in out and "FLOPs" not in out


def test_one_pass_has_every_site_and_every_decline(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(write(RECORD, {**RECORD, "hit": 0, "sites": []}), "--pass", "raise_rope") == 0
    out = capsys.readouterr().out
    assert "canonical, pass 1: raise_rope" in out and "canonical, pass 2: raise_rope" in out
    cells = [[cell.strip() for cell in line.split("│")][1:-1] for line in out.splitlines()]
    assert ["1", "model.layers.0.attn"] in cells and ["2", "model.layers.1.attn"] in cells
    assert ["%a", "add", "model.layers.1", "no rotation before it"] in cells
    assert ["FLOPs", "2.00 M → 1.50 M (-25.0 %)"] in cells and ["blocks", "1"] not in cells
    assert "blocks 1" in out, "everything that the check wrote down"


def test_an_unknown_pass_brings_near_names(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(RECORD)
    assert show(path, "--pass", "rais_rope") == 2
    assert capsys.readouterr().err == (
        f"fretsaw: UsageError: no pass rais_rope was run\n  at    {path}\n  hint  there is raise_rope\n"
    )


def test_json_is_one_object_with_the_evidence_as_it_is(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(write(RECORD), "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    assert list(whole) == ["manifest", "sections", "evidence"] and whole["evidence"] == {"passes": [RECORD]}


def test_a_text_of_ir_by_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.fir"
    path.write_text(GRAPH)
    assert show(path) == 0
    cells = [[cell.strip() for cell in line.split("│")][1:-1] for line in capsys.readouterr().out.splitlines()]
    assert ["layers 0-1", "2", "1", "linear", "16", "64 B", "2.05 k"] in cells  # 2 * 64 tokens * 4 * 4
    assert ["head", "1", "1", "silu", "0", "0 B", "256"] in cells
    assert show(path, "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    assert (whole["nodes"], whole["parameters"], whole["blocks"][0]["layers"]) == (3, 16, [0, 1])
    assert show(path, "--ir", "packed") == 2
    assert "is the text of one graph" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--ir", "canonical", "--json"), 2, "--ir and --json exclude each other"),
        (("--layer", "1"), 2, "--layer needs --dot"),
        (("--dot", "packed"), 7, "there is no section ir/packed"),
        (("--dot", "canonical", "--layer", "7"), 2, "there is no layer 7\n  hint  there are layers 0-1"),
        (("--html", "/nowhere/x.html"), 2, "cannot write /nowhere/x.html: No such file or directory"),
    ],
)
def test_what_cannot_be_shown(
    write: Write, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], code: int, message: str
) -> None:
    assert show(write(RECORD), *args) == code
    assert message in capsys.readouterr().err


def without(key: str) -> Mapping[str, Any]:
    return {k: v for k, v in RECORD.items() if k != key}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "evidence.json is not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "evidence.json: the whole must be an object, is []"),
        ("{}", "evidence.json: passes is missing"),
        ('{"passes": {}}', "evidence.json: passes must be a list, is {}"),
        ('{"passes": [1]}', "evidence.json: passes[0] must be an object, is 1"),
        (json.dumps({"passes": [without("hit")]}), "evidence.json: passes[0].hit is missing"),
        (
            json.dumps({"passes": [RECORD | {"hit": True}]}),
            "evidence.json: passes[0].hit must be a whole number, is true",
        ),
        (json.dumps({"passes": [RECORD | {"hit": -1}]}), "evidence.json: passes[0].hit is no count: negative"),
        (json.dumps({"passes": [RECORD | {"hit": 10**31}]}), "evidence.json: passes[0].hit is no count: over 10^30"),
        (json.dumps({"passes": [RECORD | {"sites": [[]]}]}), "evidence.json: passes[0].sites[0] must be text, is []"),
        (
            json.dumps({"passes": [RECORD | {"declined": [["%a"]]}]}),
            "evidence.json: passes[0].declined[0] must be a list of node, op, module path and reason, is [\"%a\"]",
        ),
        ("[" * 100_000, "evidence.json: nested deeper than 16 levels"),
        ('{"passes": [], "checks": {"a": ' + "[" * 20 + "]" * 20 + "}}", "evidence.json: nested deeper than 16 levels"),
        ('{"passes": [' + "1" * 5000 + "]}", "evidence.json is not JSON: "),
    ],
)  # fmt: skip
def test_malformed_evidence_is_named(write: Write, capsys: pytest.CaptureFixture[str], text: str, message: str) -> None:
    assert show(write(RECORD, evidence=text)) == 7
    err = capsys.readouterr().err
    assert err.startswith(f"fretsaw: ArtifactError: {message}"), err


def test_evidence_of_another_artifact_is_refused(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(write(RECORD, evidence='{"passes": []}')) == 7
    assert "evidence.json tells of 0 passes, the manifest of 1, or of others" in capsys.readouterr().err


def test_names_cannot_write_to_the_terminal(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences, markup of the table library and lone surrogates are shown as they are spelled."""
    evil = {
        **RECORD,
        "name": "\x1b[2J[bold]x[/nope]\r",
        "origin": "\ud800",
        "options": {"\x9b31m": "\x07"},
        "sites": ["a\nb"] * 2,
    }
    path = write(evil)
    for args in ((), ("--pass", evil["name"]), ("--json",)):
        assert show(path, *args) == 0
        out = capsys.readouterr().out
        assert all(c.isprintable() or c == "\n" for c in out)
    assert show(path) == 0
    assert r"\x1b[2J[bold]x[/nope]" in capsys.readouterr().out


def test_the_record_that_all_of_this_starts_from_is_well_formed() -> None:
    assert read_evidence(json.dumps({"passes": [RECORD]})).passes[0].changed
