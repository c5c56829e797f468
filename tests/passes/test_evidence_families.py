"""Every family's graph is checked, in every pass, whole and block by block; every pass has its costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest

from fretsaw.ir import Graph
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.pipeline import run_pipeline
from tests.captured import CapturedFamily
from tests.families import ENCODERS

FAMILIES = (
    "llama", "qwen3", "gemma3", "phi3", "gpt_neox", "mixtral", "qwen3_moe", "olmoe", "gpt_oss", "deepseek_v3", "bert",
    "modernbert",
)  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, captured: Callable[[str], CapturedFamily]) -> tuple[str, Graph]:
    return request.param, captured(request.param).graph


@pytest.mark.parametrize("mode", ["whole", "blocks"])
def test_every_pass_is_checked(family: tuple[str, Graph], mode: Literal["whole", "blocks"]) -> None:
    name, graph = family
    phases = ("canonical", "fused") if name in ENCODERS else ("canonical", "fused", "packed")
    result = run_pipeline(graph, phases, check=EvidenceOptions(mode=mode, tokens=40))
    assert {e.check["status"] for e in result.ledger} == {"passed"}
    changed = [e for e in result.ledger if e.check["changed"]]
    assert len(changed) >= 2
    assert all(e.check["mode"] == mode and int(e.check["memory_bound_bytes"]) > 0 for e in changed)
    assert result.checks["calibration_tokens"] == 40
    costs = [c for e in result.ledger for c in (e.cost_before, e.cost_after) if c is not None]
    assert len(costs) == 2 * len(result.ledger) and all(c.flops > 0 and c.parameters > 0 for c in costs)
    if mode == "blocks":
        assert max(int(e.check["blocks"]) for e in changed) > 2
        assert any(int(e.check["blocks_skipped"]) for e in changed)
