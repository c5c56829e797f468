"""The searches of MInference, XAttention and MoA on a small model, and what each promises."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from fretsaw.ir.errors import PassError, UsageError
from fretsaw.passes.api import Pass
from fretsaw.passes.evidence.feeds import Sequence
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.pipeline import run_pipeline
from fretsaw.passes.prepare import prepare_passes
from fretsaw.passes.sparse.calibrate.patterns import choose_patterns, pattern_candidates
from fretsaw.passes.sparse.calibrate.plot import Series, scatter
from fretsaw.passes.sparse.calibrate.spaces import default_candidates, space_candidates
from fretsaw.passes.sparse.calibrate.spans import LENGTHS, choose_spans, span_candidates, span_mask
from fretsaw.passes.sparse.calibrate.survey import Survey, Surveyed, survey
from fretsaw.passes.sparse.methods.minference import MInference
from fretsaw.passes.sparse.methods.moa import MoA
from fretsaw.passes.sparse.sparse_attention import sparse_attention
from tests.passes.sparse_calibrate.sharp import CALIB, captured, packed

TEXT = Sequence("s", np.array(CALIB), "t", 0)


def test_patterns_have_one_budget_and_the_best_is_taken() -> None:
    ways = pattern_candidates(700, 0.4, 64)
    lines = [o for o in ways if isinstance(o, MInference) and o.pattern == "vertical_slash"]
    assert [o.vertical + o.slash for o in lines] == [280] * 4
    assert ways[0] == MoA(alpha=249, beta=0.0, sink=1, dense_until=64)  # 31 and 249, in the source's ratio 100 to 800
    assert isinstance(ways[-1], MInference) and ways[-1].blocks == 4
    assert all(o.exact_dense(64) for o in ways) and not any(o.exact_dense(700) for o in ways)
    found = survey(packed(), ways, TEXT, 64)
    chosen = choose_patterns(found)
    assert sorted(chosen) == [(n, h) for n in range(2) for h in range(4)]
    for (layer, head), options in chosen.items():
        off = [heads[head].off for heads in found.layers[layer].losses if heads is not None]
        assert off[ways.index(options)] == min(off)


def test_span_masks_are_those_of_the_op() -> None:
    """The search's own masks against the lists that the pass makes."""
    for options in (MoA(alpha=64, beta=0.25), MoA(alpha=128, beta=0, dense_until=256), MoA(alpha=64, beta=1)):
        found = survey(packed(1), (options,), TEXT, 0)
        losses = found.layers[0].losses[0]
        assert losses is not None
        mask = span_mask(options, 11)
        assert losses[0].density == pytest.approx(mask.sum() / 66)
        kept = found.layers[0].block_mass[0][mask].sum() / 700
        assert losses[0].mass == pytest.approx(kept, abs=1e-5)


def diagonal(layers: int, heads: int, blocks: int) -> Survey:
    """Even heads look at their own block alone, odd ones evenly at all."""
    own = np.eye(blocks, dtype=np.float32) * 64
    evenly = np.tri(blocks, dtype=np.float32) / np.arange(1, blocks + 1)[:, None] * 64
    mass = np.stack([own if h % 4 < 2 else evenly for h in range(heads)])
    made = Survey((), replace(TEXT, ids=np.zeros(blocks * 64, np.int64)), 0)
    made.layers = {n: Surveyed((), np.ones(heads), (), mass) for n in range(layers)}
    return made


def test_spans_go_where_the_mass_is() -> None:
    plan = choose_spans(diagonal(2, 4, 16), 0.6, 2)
    assert all(d <= 0.6 + 1e-9 for d in plan.density) and len(plan.density) == len(LENGTHS)
    for layer in range(2):
        spans = [plan.chosen[layer, h] for h in range(4)]
        assert spans[0] == spans[1] and spans[2] == spans[3] and len(set(spans)) <= 2
        narrow, wide = (span_mask(s, 16).sum() for s in (spans[0], spans[2]))  # type: ignore[arg-type]
        assert narrow < wide
    assert 0 < plan.outside < choose_spans(diagonal(2, 4, 16), 0.5, 2).outside
    assert choose_spans(diagonal(2, 4, 16), 1.0, 2).outside == 0


def test_a_density_that_no_span_has() -> None:
    with pytest.raises(PassError, match="no spans have a mean density of 0.01 at every length"):
        choose_spans(diagonal(1, 2, 8), 0.01, 2)


def test_candidates_of_spans_differ() -> None:
    ways = span_candidates(1024, 0)
    assert len({span_mask(o, 16).tobytes() for o in ways}) == len(ways) > 20


@pytest.mark.parametrize("space", ["mixed", "spans", "xattention", "mean_pool", "prism", "minference", "moa"])
def test_a_compile_searches_and_writes_its_plan(space: str, tmp_path: Path) -> None:
    evidence = EvidenceOptions(calib=CALIB, calib_source="text.txt", tokens=32, max_kl=0.3)
    asked = sparse_attention.configured(
        {"method": "auto", "space": space, "tokens": 350, "dense_until": 128, "density": 0.7}
    )
    notes: list[str] = []
    stages: list[str] = []
    (got,) = prepare_passes((asked,), captured(), evidence, tmp_path / "m.fsaw", notes.append, stages.append)
    plan = tmp_path / "m.plan.toml"
    assert got.options is not None and getattr(got.options, "plan") == str(plan)  # noqa: B009  of the plan's class
    text = plan.read_text()
    assert text.startswith(f"# Found by sparse_attention:method=auto,space={space} on text.txt\n")
    said = json.loads((tmp_path / "m.plan.json").read_text())
    assert sum(said["methods"].values()) == 8 and said["taken"] in said["rounds"]
    assert "candidates in layer 1" in notes
    assert stages[0] == "passes of the dense model" and stages[1].startswith("survey of ")
    assert stages[1].endswith(" on 350 tokens") and stages[-1] == f"wrote {plan}"
    one = {"spans": {"moa"}} | {name: {name} for name in ("xattention", "mean_pool", "prism")}
    assert set(said["methods"]) - {"dense"} <= one.get(space, set(said["methods"]))
    if space not in ("minference", "moa"):
        ElementTree.fromstring((tmp_path / "m.plan.svg").read_text())
        assert said["taken"]["kl"] <= 0.3
    limits = replace(evidence, calib=CALIB[:350], max_kl=None)
    check = run_pipeline(captured(), extra=[got], check=limits).ledger[-1].check
    if check["first_row"] == 128:  # the same rows of the same text
        assert float(check["kl"]) == pytest.approx(said["taken"]["kl"], rel=1e-3)


@pytest.mark.parametrize("first", [512, 2048])
def test_candidates_leave_the_first_rows_alone(first: int) -> None:
    ways = (*default_candidates(first), *pattern_candidates(8192, 0.3, first))
    ones = [space_candidates(s, first) for s in ("spans", "xattention", "mean_pool", "dhsa", "prism", "infllm_v2")]
    assert all(o.exact_dense(first) for o in (*ways, *(o for found in ones for o in found)))
    assert [len(found) for found in ones] == [10, 11, 9, 9, 11, 9] and all(
        len({o.method for o in found}) == 1 for found in ones
    )


def asked(**options: object) -> Pass:
    given = {"method": "auto", "tokens": 350, "dense_until": 128, "space": "mean_pool"}
    return sparse_attention.configured(given | options)


EVIDENCE = EvidenceOptions(calib=CALIB, calib_source="text.txt", tokens=32)


def test_cost_is_limited_and_divergence_measured(tmp_path: Path) -> None:
    said = []
    for cost in (0.75, 0.9):
        (got,) = prepare_passes((asked(max_cost=cost),), captured(), EVIDENCE, tmp_path / "m.fsaw", lambda note: None)
        said.append(json.loads((tmp_path / "m.plan.json").read_text()))
        assert said[-1]["taken"]["cost"] <= cost * 1.001 and len(said[-1]["rounds"]) == 1
    tight, loose = (found["taken"] for found in said)
    assert loose["lost"] < tight["lost"] and 0 < loose["kl"] < tight["kl"]
    check = run_pipeline(captured(), extra=[got], check=replace(EVIDENCE, calib=CALIB[:350])).ledger[-1].check
    assert check["first_row"] == 128 and float(check["kl"]) == pytest.approx(loose["kl"], rel=1e-3)


def test_a_cost_that_no_plan_has(tmp_path: Path) -> None:
    with pytest.raises(PassError, match="no plan costs 0.05 of dense attention or less, the cheapest costs 0") as error:
        prepare_passes((asked(max_cost=0.05),), captured(), EVIDENCE, tmp_path / "m.fsaw", lambda note: None)
    assert error.value.hint == "raise max_cost, or lower dense_until: rows before 128 of 350 read everything"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"max_kl": 0.1, "max_cost": 0.5}, "max_kl and max_cost are two limits: give one of them"),
        ({"max_cost": 1.5}, "max_cost is a share of dense attention's cost, at most 1, not 1.5"),
        ({"max_cost": -0.5}, "max_cost is at least 0, not -0.5"),
        ({"max_cost": 0.5, "space": "moa"}, "the space moa is held to density, not to max_cost"),
        (
            {"space": "everything"},
            "one of mixed, spans, xattention, mean_pool, dhsa, prism, infllm_v2, minference, moa",
        ),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        asked(**options)


def test_another_limit_makes_no_survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, plan = tmp_path / "s.survey", tmp_path / "m.plan.toml"
    prepare_passes((asked(max_kl=0.3, survey=str(file)),), captured(), EVIDENCE, tmp_path / "m.fsaw", lambda note: None)
    prepare_passes((asked(max_cost=0.75),), captured(), EVIDENCE, tmp_path / "m.fsaw", lambda note: None)
    fresh = plan.read_text()
    monkeypatch.setattr("fretsaw.passes.sparse.calibrate.saved.survey", None)
    notes: list[str] = []
    prepare_passes((asked(max_cost=0.75, survey=str(file)),), captured(), EVIDENCE, tmp_path / "m.fsaw", notes.append)
    assert plan.read_text() == fresh and f"the survey of {file}" in notes
    with pytest.raises(UsageError, match="it is of another number of tokens: 350, wanted 300"):
        prepare_passes(
            (asked(max_cost=0.75, survey=str(file), tokens=300),),
            captured(),
            EVIDENCE,
            tmp_path / "m.fsaw",
            notes.append,
        )


@pytest.mark.parametrize("space", ["mean_pool", "moa"])
def test_layers_that_stay_dense_are_not_planned(space: str, tmp_path: Path) -> None:
    options = asked(space=space, dense_layers="0", density=0.7, max_kl=0.5)
    (got,) = prepare_passes((options,), captured(), EVIDENCE, tmp_path / "m.fsaw", lambda note: None)
    text = (tmp_path / "m.plan.toml").read_text()
    assert "layer = 1\n" in text and "layer = 0\n" not in text
    said = json.loads((tmp_path / "m.plan.json").read_text())["taken"]
    check = run_pipeline(captured(), extra=[got], check=replace(EVIDENCE, calib=CALIB[:350])).ledger[-1].check
    if check["first_row"] == 128:
        assert float(check["kl"]) == pytest.approx(said["kl"], rel=1e-3)


def test_a_search_needs_text(tmp_path: Path) -> None:
    asked = sparse_attention.configured({"method": "auto"})
    with pytest.raises(UsageError, match="searches on calibration text, and none was given"):
        prepare_passes((asked,), captured(), EvidenceOptions(), tmp_path / "m.fsaw", lambda note: None)


def test_auto_never_runs_as_it_is() -> None:
    with pytest.raises(UsageError, match="the method auto of sparse_attention needs a search on calibration text"):
        sparse_attention.configured({"method": "auto"}).run(packed())


def test_plots_are_svg() -> None:
    text = scatter(
        [Series("a & b", ((0.1, 1e-3, "x<y"), (0.5, 1e-2, ""))), Series("c", ((1.0, 0.5, ""),))], "t", "x", "y"
    )
    root = ElementTree.fromstring(text)
    assert len([e for e in root.iter() if e.tag.endswith("circle")]) == 5  # three points, two in the legend
