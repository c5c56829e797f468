"""What people read of a program."""

from __future__ import annotations

import os
from pathlib import Path

from fretsaw.backends.program.assemble import assemble
from fretsaw.backends.program.options import ProgramOptions
from fretsaw.backends.program.plan import plan
from fretsaw.backends.program.text import to_text
from tests.backends.program.conftest import Packed
from tests.backends.program.small import PROGRAM

GOLDEN = Path(__file__).with_name("llama.txt")


def test_one_line_for_each_launch() -> None:
    assert (
        to_text(PROGRAM, ["embed.weight"])
        == """\
entry step(%tokens i32[T], %rows i32[R]) -> %logits f32[R, 5]
  4 launches, 7 values, 3 slots
  @0: 40*T bytes
  @1: 32*T + 8 bytes
  @2: 20*R bytes
  0  look(%tokens, $embed.weight) -> %h f32[T, 8] @1, 32*T bytes
  1  attend(%h, ~k_pages, ~cu, -3) -> %o f32[T, 2, 4] @0, 32*T bytes
  2  look(%o as [T, 8]) -> %mask i8[T, 4] @1, 4*T bytes
  3  take(%o as [T, 8], %mask, %rows, $embed.weight) -> %logits f32[R, 5] @2, 20*R bytes
"""
    )


def test_tensors_without_names_stand_by_number() -> None:
    assert "  0  look(%tokens, $0) -> %h" in to_text(PROGRAM)


def test_a_tiny_model(packed: Packed) -> None:
    """Two layers of Llama; ``llama.txt`` is written anew with FRETSAW_UPDATE_GOLDEN=1."""
    made = plan(packed("llama")[0], ProgramOptions())
    text = to_text(assemble({"step": made}), [tensor.name for tensor in made.tensors])
    if os.environ.get("FRETSAW_UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
