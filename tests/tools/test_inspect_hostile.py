"""Evidence and graphs from outside, damaged at random: every view answers, or refuses with one message."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fretsaw.ir.errors import ArtifactError
from fretsaw.tools.report.evidence import Evidence, read_evidence
from fretsaw.tools.report.pass_tables import checks_line, one_pass, pass_tables
from fretsaw.tools.report.plots import plots
from tests.tools.test_inspect import RECORD

ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([10**40, -1, 1e308, "\x1b[2J", "[/x]", "\ud800", "passed", "unchecked: --no-check"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, the root last."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [p for k in keys for p in places(value[k], (*path, k))] + [path]


def put(whole: Any, path: tuple[Any, ...], new: Any) -> Any:
    """``whole`` with ``new`` at ``path``; a missing key is made when ``new`` stands for it."""
    if not path:
        return new
    whole = copy.deepcopy(whole)
    at = whole
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return whole


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    whole: Any = {"passes": [RECORD, RECORD], "checks": {"status": "passed", "mode": "whole"}}
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(whole)))
        whole = put(whole, path, draw(ODD))
    return whole


def view(evidence: Evidence) -> str:
    """Everything that is shown of the evidence, as text."""
    import io

    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=200)
    for table in pass_tables(evidence):
        console.print(table)
    for i, record in enumerate(evidence.passes):
        for table in one_pass(record, i):
            console.print(table)
    shown = [str(row) for plot in plots(evidence.passes) for row in plot.rows]
    return "\n".join([out.getvalue(), checks_line(evidence), *shown])


@settings(max_examples=400, deadline=None)
@given(damaged())
def test_damaged_evidence_is_shown_or_refused(whole: Any) -> None:
    text = json.dumps(whole)
    try:
        evidence = read_evidence(text)
    except ArtifactError as error:
        assert str(error).startswith("ArtifactError: evidence.json")
        return
    shown = view(evidence)
    assert all(c.isprintable() or c == "\n" for c in shown)
    shown.encode()  # no lone surrogate reaches a terminal or a file


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | ODD.map(json.dumps))
def test_any_text_is_evidence_or_refused(text: str) -> None:
    try:
        view(read_evidence(text))
    except ArtifactError as error:
        assert str(error).startswith("ArtifactError: evidence.json")


def test_the_properties_can_fail() -> None:
    """What is damaged above is well formed before, and its numbers reach the views."""
    evidence = read_evidence(json.dumps({"passes": [RECORD, RECORD], "checks": {"mode": "whole"}}))
    assert "2.00 M → 1.50 M" in view(evidence) and "checks (whole): 2 of 2 passes passed" in view(evidence)
    names = [p.title for p in plots(evidence.passes)]
    assert names[:2] == ["Nodes", "FLOPs of a run"] and names[-1] == "Error of the checks against their bounds"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(whole=damaged())
def test_the_command_never_shows_a_traceback(
    whole: Any, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    from fretsaw.backends.artifact import write_container
    from fretsaw.tools import cli
    from tests.tools.test_inspect import GRAPH, manifest_of

    folder: Path = tmp_path_factory.mktemp("damaged")
    path = folder / "m.fsaw"
    sections = [("ir/canonical", [GRAPH.encode()]), ("evidence.json", [json.dumps(whole).encode()]),
                ("program", [b"{}"]),
                ("code/llvm-x86-64-v3", [b"x"]), ("weights", [bytes(64)])]  # fmt: skip
    write_container(path, manifest_of([RECORD, RECORD]), sections)
    for args in ([], ["--json"], ["--pass", "raise_rope"], ["--html", str(folder / "x.html")]):
        assert cli.run(["inspect", str(path), *args]) in (0, 7)
        assert "internal error" not in capsys.readouterr().err


@pytest.mark.parametrize("key", ["context", "vocab_size"])
def test_numbers_of_thousands_of_digits(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fretsaw.backends.artifact import write_container
    from fretsaw.tools import cli
    from tests.tools.test_inspect import manifest_of

    manifest = manifest_of([])
    manifest["model"] = manifest["model"] | {key: 10**4000}
    manifest["memory"] = dict.fromkeys(manifest["memory"], 10**4000)
    path = tmp_path / "m.fsaw"
    write_container(path, manifest, [("program", [b"{}"]), ("code/llvm-x86-64-v3", [b"x"]), ("weights", [bytes(64)])])
    assert cli.run(["inspect", str(path)]) == 0
    assert "over 10^24" in capsys.readouterr().out
