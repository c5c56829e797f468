"""A pass that changes decoding is measured while it decodes: against steps taken by hand, and against its limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fretsaw.ir import Graph, ReferenceKvCache, run
from fretsaw.ir.errors import PassError
from fretsaw.passes.api import Pass
from fretsaw.passes.evidence.decoding import STEPS
from fretsaw.passes.evidence.divergence import diverge
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.pipeline import PipelineResult, run_pipeline
from fretsaw.passes.sparse.sparse_attention import sparse_attention
from tests.passes.planted import planted
from tests.passes.sparse_calibrate.sharp import CALIB, captured, packed

LAYERS, START = 2, len(CALIB) - 1 - STEPS


def quest(**options: object) -> Pass:
    """Two pages for every token that is decoded, in both layers."""
    return sparse_attention.configured({"method": "quest", "budget": 128, "first_dense": 0} | options)


def compile_it(p: Pass, calib: tuple[int, ...] = CALIB, **options: object) -> PipelineResult:
    evidence = EvidenceOptions(calib=calib, calib_source="text.txt", tokens=32, **options)  # type: ignore[arg-type]
    return run_pipeline(captured(), extra=[p], check=evidence)


def by_hand(graph: Graph) -> np.ndarray:
    """Logits of the decoded tokens, [steps, V]: a prompt, then one token a step, into a cache of its own."""
    cache, out = ReferenceKvCache(LAYERS), []
    parts = [(0, START), *((i, i + 1) for i in range(START, START + STEPS))]
    for low, high in parts:
        cache.begin_step([high - low])
        named = {
            "tokens": np.array(CALIB[low:high], np.int32), "positions": np.arange(low, high, dtype=np.int32),
            "cu": np.array([0, high - low], np.int32), "rows": np.array([high - low - 1], np.int32),
        }  # fmt: skip
        inputs = {v.name: named.get(v.name, cache) for v in graph.inputs}
        out.append(run(graph, inputs)[0][-1])
    return np.array(out[1:])


def test_the_numbers_are_those_of_single_steps() -> None:
    found = compile_it(quest())
    check = found.ledger[-1].check
    want = diverge(by_hand(packed()), by_hand(found.graph), np.array(CALIB), np.array(CALIB[START + 1 :]))
    assert check["tokens_decoded"] == STEPS and check["first_decoded"] == START
    # The caches that are cut were filled by a longer step: f32 rounding of other shapes of products.
    assert float(check["kl"]) == pytest.approx(want.mean, rel=1e-3) and want.mean > 1e-3
    assert check["top1"] == want.top1 < 1
    assert check["kl_prompt"] == pytest.approx(0, abs=1e-9)
    assert check["status"] == "measured: no limit was given"


def test_what_is_read_and_its_mass() -> None:
    """Two of 11 pages in each head."""
    check = compile_it(quest()).ledger[-1].check
    assert check["density"] == pytest.approx(2 / 11)
    assert 0 <= float(check["retained_mass_least"]) < float(check["retained_mass"]) < 1
    more = compile_it(quest(budget=512)).ledger[-1].check
    assert more["density"] == pytest.approx(8 / 11)
    assert float(more["retained_mass"]) > float(check["retained_mass"])
    assert float(more["kl"]) < float(check["kl"]) / 2


def test_limits_hold_for_decoding() -> None:
    kl = float(compile_it(quest()).ledger[-1].check["kl"])
    fine = compile_it(quest(), max_kl=kl * 1.001).ledger[-1].check
    assert fine["status"] == "passed" and fine["max_kl"] == kl * 1.001
    with pytest.raises(PassError, match="mean KL divergence from the graph before it is .* nats a token, limit") as e:
        compile_it(quest(), max_kl=kl * 0.999)
    assert e.value.hint.startswith(f"measured on 32 tokens decoded one by one from token {START} of text.txt on")
    with pytest.raises(PassError, match="the most likely token agrees with the graph before it at"):
        compile_it(quest(), min_top1=1.0)


def test_worst_pages_cost_more_than_best_ones() -> None:
    """The check can fail: the same lists, made of the lowest bounds, as a wrong sign would make them."""

    def wrong(graph: Graph) -> Graph:
        after = quest(budget=512).run(graph).graph
        nodes = tuple(
            replace(n, attrs=tuple((k, -v if k == "scale" else v) for k, v in n.attrs))  # type: ignore[operator]
            if n.op == "bound_scores" else n for n in after.nodes
        )  # fmt: skip
        return replace(after, nodes=nodes)

    good = compile_it(quest(budget=512)).ledger[-1].check
    p = replace(planted(wrong, "budget", "packed"), begins=lambda options: 512, inspect=sparse_attention.inspect)
    bad = compile_it(p).ledger[-1].check
    assert bad["density"] == good["density"] and float(bad["retained_mass"]) < float(good["retained_mass"])
    assert float(bad["kl"]) > 2 * float(good["kl"])
    with pytest.raises(PassError, match="mean KL divergence"):
        compile_it(p, max_kl=float(good["kl"]))


@pytest.mark.parametrize("known", [130, 160])
def test_a_text_that_is_too_short_measures_nothing(known: int) -> None:
    with pytest.raises(PassError) as error:
        compile_it(quest(), CALIB[:known])
    want = f"sparse_attention changes decoding from token 128 on; of {known} tokens nothing could be measured"
    assert error.value.what == want
    assert "a --calib of at least 161 tokens" in error.value.hint
    assert compile_it(quest(), CALIB[:161]).ledger[-1].check["first_decoded"] == 128


def test_a_method_that_changes_prompts_too_has_numbers_of_both() -> None:
    """A window for prompts and for decoding; limits hold for each."""
    p = sparse_attention.configured({"method": "lambda_mask", "sink": 4, "window": 64, "decode": True})
    check = compile_it(p).ledger[-1].check
    assert float(check["kl"]) > 1e-3 and float(check["kl_decoding"]) > 1e-3
    assert check["tokens_decoded"] == STEPS
    assert 0 < float(check["retained_mass_decoding"]) < 1 and int(check["rows_compared"]) > STEPS
    both = sorted((float(check["kl"]), float(check["kl_decoding"])))
    with pytest.raises(PassError, match="mean KL divergence"):
        compile_it(p, max_kl=(both[0] + both[1]) / 2)
    prompts = sparse_attention.configured({"method": "lambda_mask", "sink": 4, "window": 64})
    assert "kl_decoding" not in compile_it(prompts).ledger[-1].check


def test_decoding_that_reads_everything_is_not_said_to_be_measured() -> None:
    def lists(graph: Graph) -> Graph:
        after = quest(budget=64).run(graph).graph
        nodes = tuple(
            replace(n, attrs=tuple((k, 4096 if k == "k" else v) for k, v in n.attrs))
            if n.op == "select_top_k" else n for n in after.nodes
        )  # fmt: skip
        return replace(after, nodes=nodes)

    p = replace(planted(lists, "budget", "packed"), begins=lambda options: 64, inspect=sparse_attention.inspect)
    check = compile_it(p).ledger[-1].check
    assert check["status"] == f"unchecked: no head leaves anything out of {START + STEPS} tokens when it decodes"
    with pytest.raises(PassError, match="cannot be held to its limits: no head leaves anything out"):
        compile_it(p, max_kl=0.1)


def test_decoding_is_measured_without_an_inspector() -> None:
    p = replace(planted(lambda g: quest().run(g).graph, "budget", "packed"), begins=lambda options: 128)
    check = compile_it(p).ledger[-1].check
    assert check["kl"] == pytest.approx(0, abs=1e-9) and float(check["kl_decoding"]) > 1e-3
    with pytest.raises(PassError, match="mean KL divergence"):
        compile_it(p, max_kl=1e-3)
