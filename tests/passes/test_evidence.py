"""Checks fail just over their line and pass just under it: three classes, whole and block by block."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from fretsaw.ir import Graph, evaluate_graph, parse
from fretsaw.ir.errors import PassError, UsageError
from fretsaw.passes.evidence.check import Checker
from fretsaw.passes.evidence.compare import algebra_bound
from fretsaw.passes.evidence.feeds import feed, sequences
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.evidence.walk import Pieces, shared_cuts
from fretsaw.passes.kit.ledger import Evidence
from fretsaw.passes.pipeline import run_pipeline
from tests.passes.llama_text import VOCAB, llama
from tests.passes.planted import Change, planted, scaled_output, with_const

Mode = Literal["whole", "blocks"]
MODES: tuple[Mode, ...] = ("whole", "blocks")
CALIB = tuple(int(i) for i in np.random.default_rng(7).integers(0, VOCAB, 40))


def model(layers: int = 2) -> Graph:
    return parse(llama(layers), seed=0)


def check(change: Change, keeps: str, mode: Mode, **options: object) -> Evidence:
    graph = model()
    p = planted(change, keeps)  # type: ignore[arg-type]
    checker = Checker(EvidenceOptions(mode=mode, calib=CALIB, calib_source="text.txt", **options))  # type: ignore[arg-type]
    return checker.check(p, graph, p.run(graph).graph)


def one_step(weight: np.ndarray) -> np.ndarray:
    """The largest element moved to the next number that f32 has."""
    out = weight.copy()
    at = np.unravel_index(np.abs(out).argmax(), out.shape)
    out[at] = np.nextafter(out[at], np.float32(np.inf))
    return out


@pytest.mark.parametrize("mode", MODES)
def test_bits_sees_one_step_of_one_weight(mode: Mode) -> None:
    halves = check(
        lambda g: with_const(with_const(g, "fn.weight", lambda w: w / 2), "fn.weight", lambda w: w * 2), "bits", mode
    )
    assert halves["status"] == "passed" and halves["max_error"] == 0.0
    with pytest.raises(PassError) as error:
        check(lambda g: with_const(g, "l1.down.weight", one_step), "bits", mode)
    assert error.value.what.startswith("planted promises identical outputs; they differ by ")
    assert error.value.where == "first at %l1.x (model.layers.1)"
    assert error.value.when == "pass planted"


@pytest.mark.parametrize("mode", MODES)
def test_algebra_fails_just_over_its_bound(mode: Mode) -> None:
    graph = model()
    names = shared_cuts(graph, scaled_output(graph, 0.0), 16)  # f64 goes by blocks either way
    bound = algebra_bound(Pieces.of(graph, graph, names).pairs[-1][0].graph)
    fine = check(lambda g: scaled_output(g, 0.9 * bound), "algebra", mode)
    assert fine["status"] == "passed"
    assert 0 < float(fine["max_error"]) < 1e-6
    assert float(fine["max_error_f64"]) == pytest.approx(0.9 * bound, rel=0.02)
    with pytest.raises(
        PassError, match="planted promises that only rounding moves; in float64 outputs differ by"
    ) as error:
        check(lambda g: scaled_output(g, 1.1 * bound), "algebra", mode)
    assert error.value.where == "first at %logits"


def noisy(g: Graph) -> Graph:
    """The second layer's MLP with noise in its weights."""
    noise = np.random.default_rng(3).standard_normal
    return with_const(g, "l1.down.weight", lambda w: w + 0.2 * noise(w.shape))


@pytest.mark.parametrize("mode", MODES)
def test_budget_fails_just_over_its_limits(mode: Mode) -> None:
    measured = check(noisy, "budget", mode)
    assert measured["status"] == "measured: no limit was given"
    kl, top1 = float(measured["kl"]), float(measured["top1"])
    assert kl > 0.001 and 0.3 < top1 < 1 and measured["kl_first"] == kl
    assert measured["worst_block"] == "%l1.x (model.layers.1)"
    fine = check(noisy, "budget", mode, max_kl=kl * (1 + 1e-9), min_top1=top1)
    assert fine["status"] == "passed" and fine["max_kl"] == kl * (1 + 1e-9)
    with pytest.raises(PassError) as error:
        check(noisy, "budget", mode, max_kl=kl * (1 - 1e-9))
    assert error.value.what == (
        f"planted: mean KL divergence from the graph before it is {kl:.4g} nats a token, limit {kl:g}"
    )
    assert error.value.context.startswith("layer     %l1.x (model.layers.1): adds ")
    assert f"position  {str(measured['worst_positions']).split(',')[0]}: KL " in error.value.context
    assert (
        error.value.hint
        == "measured on 40 tokens of text.txt; weaken the pass, leave out the layers above, or raise the limit"
    )
    with pytest.raises(
        PassError, match=r"the most likely token agrees with the graph before it at 0\.\d+ of the tokens"
    ):
        check(noisy, "budget", mode, min_top1=top1 + 1e-9)


def test_both_ways_measure_the_same_predictions() -> None:
    whole, blocks = (check(noisy, "budget", mode) for mode in MODES)
    for key in ("kl", "kl_p99", "top1", "nll_change"):
        assert float(whole[key]) == pytest.approx(float(blocks[key]), rel=1e-4)
    assert blocks["blocks_skipped"] == int(blocks["blocks"]) - 1 and whole["blocks"] == 1


def test_kl_is_what_scipy_computes() -> None:
    """An oracle: softmax and relative entropy of the two graphs' logits."""
    from scipy.special import log_softmax, rel_entr, softmax

    graph = model()
    calibration, _ = sequences(graph, EvidenceOptions(calib=CALIB), 512)
    a, b = (
        next(iter(evaluate_graph(g, feed(g, calibration)).values()))[0].astype(np.float64)
        for g in (graph, noisy(graph))
    )
    measured = check(noisy, "budget", "whole")
    each = rel_entr(softmax(a, -1), softmax(b, -1)).sum(-1)
    assert measured["kl"] == pytest.approx(each.mean(), rel=1e-9)
    assert measured["kl_p99"] == pytest.approx(np.quantile(each, 0.99), rel=1e-9)
    assert measured["top1"] == (a.argmax(-1) == b.argmax(-1)).mean()
    rows, targets = np.arange(39), np.asarray(CALIB[1:])
    change = (log_softmax(a, -1) - log_softmax(b, -1))[rows, targets].mean()
    assert measured["nll_change"] == pytest.approx(change, rel=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_the_first_graph_counts_too(mode: Mode) -> None:
    """Two passes that are each within the limit, and together over it."""
    graph = model()
    step = planted(noisy, "budget")
    once = noisy(graph)
    twice = noisy(once)
    free = Checker(EvidenceOptions(mode=mode, calib=CALIB))
    first, second = free.check(step, graph, once), free.check(step, once, twice)
    assert float(second["kl_first"]) > float(second["kl"])
    limit = max(float(first["kl"]), float(second["kl"])) * 1.001
    assert limit < float(second["kl_first"])
    held = Checker(EvidenceOptions(mode=mode, calib=CALIB, max_kl=limit))
    held.check(step, graph, once)
    with pytest.raises(PassError, match="planted: mean KL divergence from the first graph is "):
        held.check(step, once, twice)


def test_not_a_number_fails_without_a_limit() -> None:
    with pytest.raises(PassError, match="is nan nats a token, which no model can mean"):
        check(lambda g: with_const(g, "fn.weight", lambda w: w * np.nan), "budget", "whole")
    with pytest.raises(PassError, match="differ by inf"):
        check(lambda g: with_const(g, "fn.weight", lambda w: w * np.nan), "algebra", "whole")


def test_limits_need_logits() -> None:
    head = "graph @f(%x: f32[S, 4]) -> (%y) {\n  dim S in [1, 64]\n  const %w: f32[4, 4]\n"
    text = head + "  %y: f32[S, 4] = linear(%x, %w)\n}"
    graph = parse(text, seed=0)
    p = planted(lambda g: with_const(g, "w", lambda w: w * np.float32(1.25)), "budget")
    found = Checker().check(p, graph, p.run(graph).graph)
    assert found["relative_error"] == pytest.approx(0.25) and found["status"] == "measured: no limit was given"
    with pytest.raises(
        UsageError, match="--max-kl and --min-top1 compare logits, and the outputs behind planted are none"
    ):
        Checker(EvidenceOptions(max_kl=1.0)).check(p, graph, p.run(graph).graph)


def test_graphs_without_data_are_stamped() -> None:
    result = run_pipeline(parse(llama(1)), check=True)
    changed = {e.check["status"] for e in result.ledger if e.hit}
    assert changed == {"unchecked: constant %embed is declared without data"}


def test_no_check_is_stamped() -> None:
    result = run_pipeline(model(1), check=EvidenceOptions(check=False))
    assert {e.check["status"] for e in result.ledger} == {"unchecked: --no-check"} == {result.checks["status"]}


def test_the_summary_says_on_what() -> None:
    result = run_pipeline(model(1), check=EvidenceOptions(calib=CALIB, calib_source="text.txt", max_kl=0.5))
    about = result.checks
    assert about["calibration_source"] == "text.txt" and about["calibration_tokens"] == 40
    assert about["seeded_source"] == "seed 0" and about["seeded_tokens"] == 16 and about["max_kl"] == 0.5
    import hashlib

    assert about["calibration_sha256"] == hashlib.sha256(np.asarray(CALIB, "<i8").tobytes()).hexdigest()
    again = run_pipeline(model(1), check=EvidenceOptions(calib=CALIB, calib_source="text.txt", max_kl=0.5))
    assert again.checks == about
    assert [e.check for e in again.ledger] == [e.check for e in result.ledger]


def test_calibration_of_another_tokenizer_is_refused() -> None:
    graph = model()
    bad = EvidenceOptions(calib=(3, VOCAB, 5), calib_source="text.txt")
    with pytest.raises(PassError, match=f"calibration token 1 is id {VOCAB}, the model knows {VOCAB}"):
        Checker(bad).check(planted(noisy, "budget"), graph, noisy(graph))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"tokens": 1}, "checks need at least 2 tokens, not 1"),
        ({"calib": (5,)}, "the calibration text is one token long, at least 2 are needed"),
        ({"max_kl": -1.0}, "--max-kl is a divergence in nats, 0 or more; not -1.0"),
        ({"max_kl": float("nan")}, "--max-kl is a divergence in nats, 0 or more; not nan"),
        ({"min_top1": 1.5}, "--min-top1 is a share of tokens, 0 to 1; not 1.5"),
        (
            {"check": False, "max_kl": 1.0},
            "--max-kl and --min-top1 are checks; with --no-check nothing would hold them",
        ),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], what: str) -> None:
    with pytest.raises(UsageError) as error:
        EvidenceOptions(**options)  # type: ignore[arg-type]
    assert error.value.what == what


def test_a_graph_that_stays_costs_nothing() -> None:
    graph = model()
    assert Checker().check(planted(lambda g: g, "bits"), graph, graph) == {"status": "passed", "changed": 0}
    assert replace(graph, phase="canonical").nodes is graph.nodes
