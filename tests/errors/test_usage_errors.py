"""Whole texts of errors of the command line and of recipes, and how the command line prints an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from fretsaw.ir.errors import UsageError
from fretsaw.passes.kit.recipe import load_recipe
from fretsaw.tools import cli
from tests.errors.kit import BLOCK, message, text


@pytest.fixture
def block_text(tmp_path: Path) -> Path:
    path = tmp_path / "block.fir"
    path.write_text(BLOCK.strip() + "\n")
    return path


def printed(argv: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """What a failing command writes to stderr; stdout stays empty."""
    assert cli.run(argv) == code
    out, err = capsys.readouterr()
    assert out == ""
    return err.rstrip("\n")


def test_a_key_that_recipes_have_not(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[pass]]\nnam = "dce"\n')
    assert message(UsageError, lambda: load_recipe(recipe)) == text(f"""
        UsageError: unknown key nam
          at    {recipe}:2
            |   1  [[pass]]
          > |   2  nam = "dce"
          hint  did you mean name? keys: name, options
    """)


def test_a_pass_that_does_not_exist(block_text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(["explain", str(block_text), "pack_token", "--quiet"], 2, capsys) == text("""
        fretsaw: UsageError: there is no pass pack_token
          at    argument PASS
          hint  did you mean pack_tokens? `fretsaw passes` lists them, --plugin FILE adds some
    """)


def test_a_module_path_that_does_not_exist(block_text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["explain", str(block_text), "raise_rms_norm", "--site", "layers.0.q_prj", "--quiet"]
    assert printed(argv, 2, capsys) == text("""
        fretsaw: UsageError: no node lies under module path layers.0.q_prj
          hint  did you mean layers.0.q_proj or layers.0.norm or layers.0?
    """)


def test_a_phase_of_one_graph(block_text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(["diff", str(block_text), str(block_text), "--phase", "fused"], 2, capsys) == text(f"""
        fretsaw: UsageError: {block_text} is the text of one graph, not an artifact with phases
          hint  leave PHASE out
    """)


def test_a_folder_for_the_reproducer_that_is_full(block_text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["bisect", str(block_text.parent), "--limit", "1", "--out", str(block_text.parent), "--quiet"]
    assert printed(argv, 2, capsys) == text(f"""
        fretsaw: UsageError: {block_text.parent} is there already and is not an empty folder
          hint  name another one with --out
    """)
