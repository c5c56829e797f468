"""Whole texts of errors of the verifier, the parser and the phases."""

from __future__ import annotations

from dataclasses import replace

from fretsaw.ir import parse, verify
from fretsaw.ir.errors import ParseError, VerifyError
from tests.errors.kit import BLOCK, block, message, text


def test_shapes_that_do_not_fit() -> None:
    broken = block(("f32[4, 8]", "f32[4, 16]"))
    assert message(VerifyError, lambda: verify(broken, when="after merge_qkv, sweep 1")) == text("""
        VerifyError: linear: in-features differ: input has 8, weight has 16 (invariant 6)
          at    %q   layers.0.q_proj   modeling.py:14
          when  after merge_qkv, sweep 1, phase captured
            | %a: f32[2, 8] = add(%x, %x)
            | %n: f32[2, 8] = rms_norm(%a, %gain) {eps = 1e-05}
          > | %q: f32[2, 4] = linear(%n, %w)
            |                            ^^ const f32[4, 16]
            | %r: f32[2, 4] = silu(%q)
            | %s: f32[2, 4] = exp(%r)
          hint  a bug of that pass: send this message and the IR that `--dump-ir DIR` writes
    """)


def test_a_value_that_is_read_before_it_is_there() -> None:
    good = block()
    order = replace(good, nodes=(good.nodes[0], good.nodes[2], good.nodes[1], *good.nodes[3:]))
    assert message(VerifyError, lambda: verify(order)) == text("""
        VerifyError: linear: %n is not defined before its use (invariant 2)
          at    %q   layers.0.q_proj   modeling.py:14
          when  phase captured
            | %a: f32[2, 8] = add(%x, %x)
          > | %q: f32[2, 4] = linear(%n, %w)
            |                        ^^ f32[2, 8]
            | %n: f32[2, 8] = rms_norm(%a, %gain) {eps = 1e-05}
            | %r: f32[2, 4] = silu(%q)
    """)


def test_an_op_that_the_phase_bans() -> None:
    left = replace(block(("= add(%x, %x)", "= cos(%x)")), phase="canonical")
    assert message(VerifyError, lambda: verify(left, when="at the end of phase canonical")) == text("""
        VerifyError: cos is not legal in phase canonical: left over from a rotary embedding that no rule recognised \
(invariant 11)
          at    %a   layers.0   modeling.py:10
          when  at the end of phase canonical, phase canonical
          > | %a: f32[2, 8] = cos(%x)
            |                 ^^^
            | %n: f32[2, 8] = rms_norm(%a, %gain) {eps = 1e-05}
            | %q: f32[2, 4] = linear(%n, %w)
          hint  `fretsaw explain CHECKPOINT raise_rope` shows the nearest miss
    """)


def test_an_attribute_that_the_op_has_not() -> None:
    assert message(VerifyError, lambda: verify(block(("eps = 1e-05", "eps = 1e-05, epsilon = 1.0")))) == text("""
        VerifyError: rms_norm: unknown attribute epsilon (invariant 6)
          at    %n   layers.0.norm   modeling.py:12
          when  phase captured
            | %a: f32[2, 8] = add(%x, %x)
          > | %n: f32[2, 8] = rms_norm(%a, %gain) {eps = 1e-05, epsilon = 1.0}
            |                                                   ^^^^^^^^^^^^^
            | %q: f32[2, 4] = linear(%n, %w)
            | %r: f32[2, 4] = silu(%q)
    """)


def test_a_result_of_another_type() -> None:
    assert message(VerifyError, lambda: verify(block(("%r: f32[2, 4]", "%r: f32[2, 5]")))) == text("""
        VerifyError: silu: result is declared f32[2, 5], its shape rule gives f32[2, 4] (invariant 6)
          at    %r   layers.0.act
          when  phase captured
            | %n: f32[2, 8] = rms_norm(%a, %gain) {eps = 1e-05}
            | %q: f32[2, 4] = linear(%n, %w)
          > | %r: f32[2, 5] = silu(%q)
            | ^^^^^^^^^^^^^
            | %s: f32[2, 4] = exp(%r)
            | %y: f32[2, 4] = neg(%s)
    """)


def test_text_that_cannot_be_read() -> None:
    assert message(ParseError, lambda: parse(BLOCK.strip().replace("silu(%q)", "silu(%z)"))) == text("""
        ParseError: %z is not defined before its use
          at    line 7, column 25
            |   %r: f32[2, 4] = silu(%z)  // layers.0.act
            |                         ^
    """)
