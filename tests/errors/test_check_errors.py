"""Whole texts of errors of checks: a pass that keeps less than it promises, and a budget that is spent."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fretsaw.ir import Graph, Node, parse
from fretsaw.ir.errors import PassError
from fretsaw.passes.api import Edit, Pass, rule
from fretsaw.passes.evidence.check import Checker
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.pipeline import PlannedPass, run_step
from tests.errors.kit import message, text

MODEL = """
graph @m(%input_ids: i64[B, S], %positions: i64[B, S]) -> (%logits) {
  dim B in [1, 4]
  dim S in [1, 64]
  const %e: f32[16, 8]
  const %w: f32[16, 8]
  %x: f32[B, S, 8] = embedding(%input_ids, %e)  // model.embed (modeling.py:3)
  %logits: f32[B, S, 16] = linear(%x, %w)  // lm_head (modeling.py:9)
}
"""


def scale(keeps: Literal["bits", "algebra", "budget"], factor: float) -> Pass:
    @rule(root="linear", phase="canonical", keeps=keeps)
    def scale_head(root: Node, g: Graph) -> Edit | None:
        weight = g.const(root["weight"])
        if weight is None or root["weight"].name == "scaled":
            return None
        edit = Edit()
        edit.replace(root, weight=edit.const("scaled", weight * np.float32(factor)))
        return edit

    return scale_head


def check(p: Pass, options: EvidenceOptions) -> object:
    graph = parse(MODEL.strip(), seed=0)
    return run_step(PlannedPass("canonical", p), graph, (), Checker(options), False)


def test_bits_that_are_not_kept() -> None:
    assert message(PassError, lambda: check(scale("bits", 2), EvidenceOptions())) == text("""
        PassError: scale_head promises identical outputs; they differ by 1 of the largest
          at    first at %logits (lm_head)
          when  pass scale_head
    """)


def test_algebra_that_is_not_kept() -> None:
    assert message(PassError, lambda: check(scale("algebra", 2), EvidenceOptions())) == text("""
        PassError: scale_head promises that only rounding moves; in float64 outputs differ by 1, bound 1.78e-15
          at    first at %logits (lm_head)
          when  pass scale_head
    """)


def test_a_budget_that_is_exceeded() -> None:
    assert message(PassError, lambda: check(scale("budget", -1), EvidenceOptions(min_top1=0.99))) == text("""
        PassError: scale_head: the most likely token agrees with the graph before it at 0 of the tokens, limit 0.99
          when  pass scale_head
            | layer     %logits (lm_head): adds 2 to the relative error
            | layer     %x (model.embed): adds 0 to the relative error
            | position  15: KL 16.87
            | position  29: KL 16.87
            | position  61: KL 16.87
          hint  measured on 64 tokens of seed 0; weaken the pass, leave out the layers above, or raise the limit
    """)
