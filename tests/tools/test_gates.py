"""The stamp of the checks in an artifact's manifest and evidence."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fretsaw.ir import parse
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.pipeline import PipelineResult, run_pipeline
from fretsaw.tools.contents import _evidence, checks_of
from tests.passes.llama_text import llama


def result(check: EvidenceOptions, data: bool = True) -> PipelineResult:
    return run_pipeline(parse(llama(1), seed=0 if data else None), check=check)


@pytest.mark.parametrize(
    ("check", "data", "stamp"),
    [
        (EvidenceOptions(tokens=16), True, "passed"),
        (EvidenceOptions(check=False), True, "off"),
        (EvidenceOptions(tokens=16), False, "partial"),
    ],
)
def test_the_stamp(check: EvidenceOptions, data: bool, stamp: str) -> None:
    assert checks_of(result(check, data)) == stamp


def test_a_measured_pass_is_not_called_passed() -> None:
    found = result(EvidenceOptions(tokens=16))
    last = replace(found.ledger[-1], check={"status": "measured: no limit was given"})
    assert checks_of(replace(found, ledger=(*found.ledger[:-1], last))) == "partial"


def test_evidence_has_its_head_and_the_same_bytes_twice() -> None:
    first, second = (_evidence(result(EvidenceOptions(tokens=16))) for _ in range(2))
    assert first == second
    head = json.loads(first)["checks"]
    assert head["mode"] == "whole" and head["calibration_tokens"] == 16 and head["calibration_source"] == "seed 0"
    off = json.loads(_evidence(result(EvidenceOptions(check=False))))
    assert off["checks"] == {"status": "unchecked: --no-check"}
    assert {p["check"]["status"] for p in off["passes"]} == {"unchecked: --no-check"}
