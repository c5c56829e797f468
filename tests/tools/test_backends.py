"""``fretsaw backends`` and the page of ops: what there is, without loading a target's library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fretsaw.backends.registry import BUILT_IN
from fretsaw.tools import cli
from fretsaw.tools.op_table import built_in, page, rows


@pytest.mark.parametrize("argv", [[], ["cpu"], ["--ops"], ["--json"]])
def test_listing_loads_no_library(argv: list[str]) -> None:
    program = f"import sys; from fretsaw.tools.cli import run; run(['backends', *{argv}]); print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "cpu" in out and not any(f"'{name}'" in out for name in ("tvm", "torch", "transformers"))


def test_the_list_has_every_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["backends"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["name", "phase", "lowers", "options"]
    assert {line.split()[0] for line in lines[1:]} >= set(BUILT_IN)
    assert any("chunk_tokens" in line and " ops " in line for line in lines[1:])


def test_one_backend(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["backends", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "origin:   built-in" in out and "Most tokens of one step" in out and "default 512" in out


def test_plain_data_counts_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["backends", "cpu", "--ops", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    refused = [op for op, answer in found["answers"].items() if "refused" in answer]
    assert found["ops"] == {"lowered": len(found["answers"]) - len(refused), "refused": len(refused)}
    assert "matmul" in refused and found["answers"]["linear"]["to"]


def test_a_broken_package_is_listed_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fretsaw.backends]\nbroken = there_is_no_such_module:backend\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert cli.run(["backends"]) == 0
    out = capsys.readouterr().out
    assert "cpu" in out and "the backend broken of package broken 1.0 cannot be loaded: ModuleNotFoundError" in out
    assert cli.run(["backends", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert "cannot be loaded" in found["broken"]["error"] and "ops" in found["cpu"]
    assert cli.run(["backends", "broken"]) == 2
    assert "cannot be loaded" in capsys.readouterr().err


def test_the_page_of_ops_is_up_to_date(root: Path) -> None:
    text = (root / "docs" / "ops.md").read_text(encoding="utf-8")
    assert page(built_in()) == text, "run python -m fretsaw.tools.op_table docs/ops.md"


def test_every_cell_says_something() -> None:
    heading, *body = rows(built_in())
    assert len(body) > 90 and all(len(row) == len(heading) == len(BUILT_IN) + 1 and all(row) for row in body)
    cells = {row[0]: row[1] for row in body}
    assert cells["cos"].startswith("- (") and cells["where"].startswith("refused: ")
