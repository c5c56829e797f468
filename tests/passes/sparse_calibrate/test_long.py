"""A pass that acts on long texts only is measured on long texts, or the compile fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fretsaw.ir import Graph, evaluate_graph
from fretsaw.ir.errors import PassError
from fretsaw.passes.api import Pass
from fretsaw.passes.evidence.divergence import diverge
from fretsaw.passes.evidence.feeds import Sequence, feed
from fretsaw.passes.evidence.long import compared_rows
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.pipeline import PipelineResult, run_pipeline
from fretsaw.passes.sparse.sparse_attention import sparse_attention
from tests.passes.planted import planted, with_const
from tests.passes.sparse_calibrate.sharp import CALIB, captured, packed

FIRST = 128


def sparse(**options: object) -> Pass:
    given = {"method": "mean_pool", "density": 0.1, "dense_until": FIRST} | options
    return replace(sparse_attention.configured(given), begins=lambda options: options.dense_until)


def compile_it(p: Pass, calib: tuple[int, ...] = CALIB, **options: object) -> PipelineResult:
    evidence = EvidenceOptions(calib=calib, calib_source="text.txt", tokens=32, **options)  # type: ignore[arg-type]
    return run_pipeline(captured(), extra=[p], check=evidence)


def test_the_numbers_are_those_of_whole_runs() -> None:
    found = compile_it(sparse())
    check = found.ledger[-1].check
    assert (
        check["tokens_long"] == 700 and check["first_row"] == FIRST and check["kl_short"] == pytest.approx(0, abs=1e-9)
    )
    text = Sequence("t", np.array(CALIB), "", 0)
    logits = [evaluate_graph(g, feed(g, text))[g.outputs[0]] for g in (packed(), found.graph)]
    rows = compared_rows(found.graph, FIRST, 700)
    assert rows[0] == FIRST and rows[-1] == 698 and len(rows) == check["rows_compared"] == 512
    want = diverge(logits[0][rows], logits[1][rows], text.ids, text.ids[rows + 1])
    assert float(check["kl"]) == pytest.approx(want.mean, rel=1e-3) and want.mean > 1e-4
    assert check["top1"] == want.top1 < 1
    assert float(check["nll_change"]) == pytest.approx(want.nll_change, abs=1e-5)
    assert "attention" in found.reports
    said = found.reports["attention"].to_json()
    assert said["tokens"] == 700 and said["source"] == "text.txt" and said["first"] == FIRST
    heads = [h for n in said["layers"] for h in n["heads"]]  # type: ignore[attr-defined]
    assert len(heads) == 8 and {h["method"].split(":")[0] for h in heads} == {"mean_pool"}
    assert all(0 < h["density"] < 0.8 and 0 < h["error"] <= h["bound"] and h["retained_mass"] < 1 for h in heads)
    assert float(check["density"]) == pytest.approx(np.mean([h["density"] for h in heads]), rel=1e-5)


def test_layers_that_stay_dense_are_said() -> None:
    found = compile_it(sparse(layers=(1,))).reports.get("attention")
    assert found is not None
    said = found.to_json()
    heads = {n["layer"]: n["heads"] for n in said["layers"]}  # type: ignore[attr-defined]
    assert [h["method"] for h in heads[0]] == ["dense"] * 4 and {h["density"] for h in heads[0]} == {1.0}
    assert {h["method"] for h in heads[1]} == {"mean_pool"} and all(h["density"] < 1 for h in heads[1])
    assert {m["layer"] for m in said["masks"]} == {1}  # type: ignore[attr-defined]


def test_limits_hold_on_the_long_text() -> None:
    kl = float(compile_it(sparse()).ledger[-1].check["kl"])
    fine = compile_it(sparse(), max_kl=kl * 1.001).ledger[-1].check
    assert fine["status"] == "passed" and fine["max_kl"] == kl * 1.001
    with pytest.raises(
        PassError, match=r"mean KL divergence from the graph before it is .* nats a token, limit"
    ) as error:
        compile_it(sparse(), max_kl=kl * 0.999)
    assert error.value.hint.startswith("measured on 512 of 700 tokens of text.txt, from token 128 on")


def test_limits_are_not_said_to_hold_where_nothing_was_left_out() -> None:
    dense = replace(sparse_attention.configured({"method": "dense"}), begins=lambda options: FIRST)
    check = compile_it(dense).ledger[-1].check
    assert check["status"] == "unchecked: no head leaves anything out of a prompt of 700 tokens"
    with pytest.raises(PassError, match="cannot be held to its limits: no head leaves anything out of a prompt"):
        compile_it(dense, max_kl=0.1)


@pytest.mark.parametrize("known", [100, 128, 129])
def test_a_text_that_is_too_short_measures_nothing(known: int) -> None:
    with pytest.raises(PassError) as error:
        compile_it(sparse(), CALIB[:known])
    want = f"the calibration text has {known} tokens, sparse_attention begins at 128: nothing would be measured"
    assert error.value.what == want
    assert "--calib" in error.value.hint


def test_one_row_is_enough() -> None:
    assert compile_it(sparse(), CALIB[:130]).ledger[-1].check["rows_compared"] == 1


def test_a_context_that_is_too_short_measures_nothing() -> None:
    with pytest.raises(PassError, match="the model reads at most 4096 tokens, sparse_attention begins at 5000"):
        compile_it(sparse(dense_until=5000), CALIB * 10)


def test_other_passes_keep_their_short_texts() -> None:
    p = planted(lambda g: with_const(g, "l1.down.weight", lambda w: 1.01 * w), "budget", "packed")
    found = compile_it(p)
    assert "tokens_long" not in found.ledger[-1].check and not found.reports


def test_wrong_wiring_is_seen_with_nothing_left_out() -> None:
    def wrong(graph: Graph) -> Graph:
        after = sparse().run(graph).graph
        nodes = tuple(
            replace(n, attrs=tuple((k, 2 * v if k == "scale" else v) for k, v in n.attrs))  # type: ignore[operator]
            if n.op == "block_attention" else n for n in after.nodes
        )  # fmt: skip
        return replace(after, nodes=nodes)

    p = replace(planted(wrong, "budget", "packed"), begins=lambda options: FIRST, inspect=sparse_attention.inspect)
    with pytest.raises(PassError, match="with nothing left out predictions differ from the graph before it by"):
        compile_it(p)


def test_what_takes_too_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fretsaw.passes.evidence.long.LONG_FLOPS", 10**6)
    status = compile_it(sparse()).ledger[-1].check["status"]
    assert str(status).startswith("unchecked: a run over 700 tokens takes ")
    with pytest.raises(PassError, match="cannot be held to its limits"):
        compile_it(sparse(), max_kl=1.0)


def test_progress_is_shown() -> None:
    notes: list[str] = []
    evidence = EvidenceOptions(calib=CALIB, tokens=32)
    run_pipeline(captured(), extra=[sparse()], check=evidence, observer=lambda event: notes.append(event.name))
    assert "sparse_attention: attention of layer 1" in notes and any(
        n.startswith("sparse_attention: dense, ") for n in notes
    )
