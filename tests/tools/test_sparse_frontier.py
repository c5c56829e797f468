"""The bench of sparse settings: the pass takes every one of them, and the report is drawn from files."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fretsaw.passes.sparse.sparse_attention import sparse_attention
from fretsaw.tools.bench.sparse_frontier import Work, ratio, report
from fretsaw.tools.bench.sparse_settings import CONTEXT, SETTINGS, Setting


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_settings_are_understood(setting: Setting) -> None:
    options = sparse_attention.configured(setting.given()).options
    assert getattr(options, "method") == setting.method  # noqa: B009  of the method's class
    assert not getattr(options, "exact_dense")(8000)  # noqa: B009
    if getattr(options, "whole_prompt")():  # noqa: B009
        assert setting.chunk == CONTEXT


def test_names_are_unique() -> None:
    names = [s.name for s in SETTINGS]
    assert len(set(names)) == len(names)


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, mine = Work(tmp_path / "w"), SETTINGS[:2]
    bench = {"prefill": [{"tokens": 8000, "speedup": 1.25}]}
    assert ratio(bench) == 0.8
    scores = {"kl_mean": 0.01, "kl_p99": 0.2, "top1_agreement": 0.95}
    work.save("eval", {mine[0].name: scores})
    work.save("bench", {mine[0].name: bench})
    work.save("passkey", {mine[0].name: {"exact": 0.5, "nll": 1.25}})
    report(work, mine, tmp_path / "plot.svg", tmp_path / "out.json")
    said = json.loads((tmp_path / "out.json").read_text())["settings"]
    assert said[0]["kl"] == 0.01 and said[0]["time"] == 0.8 and "kl" not in said[1]
    ElementTree.fromstring((tmp_path / "plot.svg").read_text())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| setting | speed | mean KL | top-1 equal | keys found | nats of the key |"
    assert lines[2] == f"| `{mine[0].options}` | 1.25 | 0.01 | 95.0% | 50% | 1.25 |"
    assert len(lines) == 3  # nothing is known of the other one
