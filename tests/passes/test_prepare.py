"""Searches that passes want before the pipeline runs, by a pass that nobody knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fretsaw.ir import Graph
from fretsaw.passes.api import Anything, Outcome, graph_pass
from fretsaw.passes.evidence.options import EvidenceOptions
from fretsaw.passes.fused.fold_norm_gain import fold_norm_gain
from fretsaw.passes.kit.prepare import Preparation, Search
from fretsaw.passes.prepare import prepare_passes
from tests.passes.sparse_calibrate.sharp import captured

EVIDENCE = EvidenceOptions(calib=(3, 1, 4), calib_source="pi.txt", max_kl=0.5)


@dataclass(frozen=True)
class Bits:
    """Args:
    bits: Of every norm with a gain; 0: a search says.
    """

    bits: int = 0


def search(options: Bits) -> Search | None:
    return None if options.bits else Search("search bits", found)


def found(given: Preparation) -> Bits:
    """As many bits as there are norms with a gain when the passes before have run, and tokens of calibration."""
    given.stage(f"{len(given.calib)} tokens of {given.calib_source}, limit {given.max_kl}")
    given.note("counting")
    norms = sum(node.op == "rms_norm" and node.get("gain") is not None for node in given.graph().nodes)
    given.output.with_suffix(".bits").write_text(str(norms))
    return Bits(norms + len(given.calib))


@graph_pass(phase="packed", keeps="bits", sites=Anything(), options=Bits, prepare=search)
def choose_bits(graph: Graph, options: Bits) -> Outcome:
    """Does nothing."""
    assert options.bits
    return Outcome(graph)


def test_a_search_gives_the_options_and_sees_what_runs_before_it(tmp_path: Path) -> None:
    notes: list[str] = []
    stages: list[str] = []
    output = tmp_path / "m.fsaw"
    alone = prepare_passes((choose_bits,), captured(), EVIDENCE, output, notes.append, stages.append)
    assert notes == ["counting"] and stages == ["3 tokens of pi.txt, limit 0.5"]
    norms = int((tmp_path / "m.bits").read_text())
    assert norms > 0 and [p.options for p in alone] == [Bits(norms + 3)]
    both = prepare_passes((fold_norm_gain, choose_bits), captured(), EVIDENCE, output, notes.append)
    assert both[0] is fold_norm_gain and int((tmp_path / "m.bits").read_text()) < norms
    assert both[1].options == Bits(int((tmp_path / "m.bits").read_text()) + 3)


def test_nothing_is_searched_where_the_options_say_all(tmp_path: Path) -> None:
    given = choose_bits.configured({"bits": "4"})
    assert choose_bits.search is not None and given.search is None and fold_norm_gain.search is None
    assert prepare_passes((given,), captured(), EVIDENCE, tmp_path / "m.fsaw", lambda note: None) == (given,)
    assert not list(tmp_path.iterdir())
