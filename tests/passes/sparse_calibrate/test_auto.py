"""A search from text to plan on a small model: what it promises is what a compile measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fretsaw.ir.errors import PassError
from fretsaw.passes.evidence.feeds import Sequence
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.pipeline import run_pipeline
from fretsaw.passes.sparse.calibrate.auto import auto_plan
from fretsaw.passes.sparse.calibrate.plans import plan_toml
from fretsaw.passes.sparse.calibrate.report import AttentionReport
from fretsaw.passes.sparse.calibrate.survey import selectors, survey
from fretsaw.passes.sparse.methods.lambda_mask import LambdaMask
from fretsaw.passes.sparse.methods.mean_pool import MeanPool
from fretsaw.passes.sparse.sparse_attention import sparse_attention
from tests.passes.sparse_calibrate.sharp import CALIB, captured, packed

IDS = np.array(CALIB)
WAYS = (
    LambdaMask(sink=0, window=64), LambdaMask(sink=64, window=300), MeanPool(density=0.1, dense_until=128),
    MeanPool(density=0.6, dense_until=128),
)  # fmt: skip


def test_a_survey_measures_what_a_compile_measures() -> None:
    """Each candidate on dense activations: what the third run of a long check reports for that candidate alone."""
    found = survey(packed(), WAYS, Sequence("s", IDS, "t", 0), 128)
    assert sorted(found.layers) == [0, 1]
    for c, options in enumerate(WAYS[1:3], 1):
        own = sparse_attention.configured({"method": options.method, **options.own()})
        evidence = EvidenceOptions(calib=CALIB, tokens=32)
        report = run_pipeline(captured(), extra=[own], check=evidence).reports["attention"]
        assert isinstance(report, AttentionReport)
        for layer in (0, 1):
            losses = found.layers[layer].losses[c]
            assert losses is not None
            for mine, theirs in zip(losses, report.layers[layer], strict=True):
                assert mine.density == theirs.density
                if report.first == 128:
                    assert mine.error == pytest.approx(theirs.error, rel=1e-3, abs=1e-6)
    assert found.layers[0].selection[0] == 0 < found.layers[0].selection[2] < 0.2


def test_selectors_are_what_the_pass_inserts() -> None:
    found = selectors(packed(), WAYS[2])
    assert sorted(found) == [0, 1]
    ops = [n.op for n in found[1].nodes]
    assert ops[-2:] == ["compact_blocks", "block_attention"] and "pool_keys" in ops and "rope" not in ops
    assert sorted(selectors(packed(), MeanPool(layers=(1,), density=0.5))) == [1]


def test_the_plan_holds_its_limit_when_it_is_compiled(tmp_path: Path) -> None:
    limit = 0.05
    found = auto_plan(packed(), IDS, "text.txt", max_kl=limit, tokens=350, first=128, candidates=WAYS)
    assert found.taken.kl <= limit and found.taken.cost < 1 and found.chosen
    assert found.taken in found.rounds and len(found.rounds) <= 4
    path = tmp_path / "plan.toml"
    path.write_text(plan_toml(found.chosen))
    plan = sparse_attention.configured({"method": "plan", "plan": str(path)})
    evidence = EvidenceOptions(calib=CALIB[:350], tokens=32, max_kl=limit)
    compiled = run_pipeline(captured(), extra=[plan], check=evidence)
    assert compiled.ledger[-1].check["status"] == "passed"
    first = plan.acts_from
    assert first is not None and first <= 128
    if first == 128:
        assert compiled.ledger[-1].check["kl"] == pytest.approx(found.taken.kl, rel=1e-3)
    costs, losses = [c for _, c, _ in found.frontier], [x for _, _, x in found.frontier]
    assert costs == sorted(costs, reverse=True) and losses == sorted(losses)


def test_a_tighter_limit_costs_more() -> None:
    tight, loose = (
        auto_plan(packed(), IDS, "t", max_kl=limit, tokens=350, first=128, candidates=WAYS).taken
        for limit in (0.003, 0.3)
    )
    assert tight.kl <= 0.003 and tight.cost > loose.cost


def test_a_text_that_is_too_short() -> None:
    with pytest.raises(PassError, match="the calibration text has 100 tokens, sparse attention begins at 128"):
        auto_plan(packed(), IDS[:100], "t", max_kl=0.1, tokens=350, first=128, candidates=WAYS)


def test_no_plan_holds_an_impossible_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fretsaw.passes.sparse.calibrate.auto._Verifier.__call__", lambda self, chosen: (1.0, 0.0))
    with pytest.raises(PassError, match="no plan of 4 holds a divergence of 0.1 nats a token, the closest has 1"):
        auto_plan(packed(), IDS, "t", max_kl=0.1, tokens=350, first=128, candidates=WAYS)
