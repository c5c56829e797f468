"""Attention and experts as transformers writes them, raised: the program that the hooks give, and the same logits."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fretsaw.frontend.capture import capture_all
from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.frontend.families import FAMILIES
from fretsaw.frontend.modes import Attention, Experts
from fretsaw.ir import Graph, Node, run
from fretsaw.ir.errors import CaptureError
from fretsaw.passes.pipeline import run_pipeline
from tests.families import BUILDERS, reference, save
from tests.frontend.test_families import TOLERANCE, error, ids_of, interpret

WITHOUT_SDPA = ("gpt_oss",)
CANONICAL = ("canonical",)
PAIRS = [(name, "eager") for name in BUILDERS] + [(name, "sdpa") for name in BUILDERS if name not in WITHOUT_SDPA]
# One of each kind of mask, sink and mixture runs always.
QUICK = {("llama", "sdpa"), ("gpt_oss", "eager"), ("deepseek_v3", "eager"), ("modernbert", "sdpa")}


def test_every_family_is_tried() -> None:
    assert {family for family in FAMILIES if family.removesuffix("_text") in BUILDERS} == set(FAMILIES)


def raised(directory: Path, attention: Attention, experts: Experts) -> Graph:
    graph = capture_all(load_checkpoint(directory), attention=attention, experts=experts).graph
    assert attention != "eager" or not graph.count("attention"), "written out, so that raising it means something"
    assert experts == "hook" or not graph.count("experts")
    return run_pipeline(graph, CANONICAL).graph


@pytest.mark.parametrize(
    ("name", "attention"),
    [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.exhaustive, id="-".join(pair)) for pair in PAIRS],
)
def test_raised_is_what_the_hooks_give(name: str, attention: Attention, tmp_path: Path) -> None:
    """Op for op and attribute for attribute; a scale passes through float32 on the way."""
    model = save(name, tmp_path)
    graph, hooked = raised(tmp_path, attention, "batched"), raised(tmp_path, "hook", "hook")
    assert Counter(n.op for n in graph.nodes) == Counter(n.op for n in hooked.nodes)
    for op in ("attention", "experts"):
        ours, theirs = ({n.loc.module: n for n in g.nodes if n.op == op} for g in (graph, hooked))
        assert ours.keys() == theirs.keys()
        for module, node in ours.items():
            assert alike(node, theirs[module]), (module, node.attrs, theirs[module].attrs)
            assert [v.type for v in node.operands] == [v.type for v in theirs[module].operands]
    for batch, length in ((1, 1), (3, 29)) if name != "phi3_longrope" else ((3, 29),):
        ids = ids_of(batch, length)
        assert error(interpret(graph, ids), reference(model, torch.from_numpy(ids))) < TOLERANCE


def alike(ours: Node, theirs: Node) -> bool:
    a, b = dict(ours.attrs), dict(theirs.attrs)
    scales = a.pop("scale", 1.0), b.pop("scale", 1.0)
    return a == b and math.isclose(float(str(scales[0])), float(str(scales[1])), rel_tol=1e-7)


def test_masks_count_from_the_first_position(tmp_path: Path) -> None:
    """The masks compare positions; what is raised holds wherever a row's positions start."""
    save("gemma3", tmp_path)
    captured = capture_all(load_checkpoint(tmp_path), attention="eager").graph
    graph = run_pipeline(captured, CANONICAL).graph
    ids = ids_of(2, 13)
    positions = np.array([[5], [40]]) + np.arange(13)
    feeds = {"input_ids": ids, "positions": positions}
    (before,), (after,) = run(captured, dict(feeds)), run(graph, dict(feeds))
    assert np.abs(before - after).max() < TOLERANCE * np.abs(before).max()


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    """A window one token too wide in one layer is seen, in the attributes and in the logits."""
    model = save("mixtral", tmp_path)
    graph = raised(tmp_path, "sdpa", "batched")
    first = next(n for n in graph.nodes if n.op == "attention")
    wider = replace(first, attrs=tuple(sorted({**dict(first.attrs), "window": first.int_attr("window") + 1}.items())))
    assert not alike(wider, first)
    broken = replace(graph, nodes=tuple(wider if n is first else n for n in graph.nodes))
    ids = ids_of(2, 19)
    assert error(interpret(broken, ids), reference(model, torch.from_numpy(ids))) > TOLERANCE


def test_the_loop_over_experts_is_refused_by_name(tmp_path: Path) -> None:
    save("mixtral", tmp_path)
    with pytest.raises(CaptureError) as caught:
        capture_all(load_checkpoint(tmp_path), experts="eager")
    assert str(caught.value) == (
        "CaptureError: experts='eager' cannot be traced: transformers loops over the experts that a batch happens to "
        "hit, so the number of iterations depends on the data\n"
        "  hint  use 'hook' (one op) or 'batched' (the same sum, written without a loop)"
    )


def test_a_family_without_sdpa_is_refused(tmp_path: Path) -> None:
    save("gpt_oss", tmp_path)
    with pytest.raises(CaptureError) as caught:
        capture_all(load_checkpoint(tmp_path), attention="sdpa")
    assert str(caught.value) == (
        "CaptureError: GptOssForCausalLM has no attention through scaled_dot_product_attention\n"
        f"  at    {tmp_path / 'config.json'}\n"
        "  hint  use attention='hook' or attention='eager'"
    )


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    save("llama", tmp_path)
    with pytest.raises(
        CaptureError, match=r"there is no capture mode attention='flash'\n  hint  modes: hook, sdpa, eager"
    ):
        capture_all(load_checkpoint(tmp_path), attention="flash")  # type: ignore[arg-type]
