"""bisect names the planted pass and the planted site, writes a reproducer that shows it, and says when all is well."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fretsaw.ir import parse, run
from fretsaw.passes.evidence.feeds import Sequence
from fretsaw.passes.kit.recipe import load_recipe
from fretsaw.passes.kit.registry import Registry
from fretsaw.tools import cli
from fretsaw.tools.bisect.block import minimal_block
from fretsaw.tools.bisect.meter import Meter
from fretsaw.tools.bisect.search import first_site
from tests import families
from tests.errors.test_check_errors import MODEL, scale

PLUGIN = '''"""Scale the down projection of one layer, and those of the others by one."""

from dataclasses import dataclass

import numpy as np

from fretsaw.passes.api import Edit, rule


@dataclass(frozen=True)
class Options:
    layer: int = 2
    factor: float = 1.5


@rule(root="linear", phase="canonical", keeps="budget", options=Options)
def scale_some(root, g, options):
    name = root["weight"].name
    if name.endswith("scaled") or not root.loc.module.endswith("down_proj"):
        return None
    factor = options.factor if f".{options.layer}." in root.loc.module else 1.0
    edit = Edit()
    edit.replace(root, weight=edit.const(f"{name}.scaled", g.const(root["weight"]) * np.float32(factor)))
    return edit
'''


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of four layers."""
    folder = tmp_path_factory.mktemp("llama4")
    families.llama(num_hidden_layers=4).save_pretrained(folder)
    return folder


def recipe(folder: Path, options: str = "") -> Path:
    (folder / "scale.py").write_text(PLUGIN)
    path = folder / "recipe.toml"
    path.write_text(f'plugins = ["scale.py"]\n[[pass]]\nname = "scale_some"\n{options}\n')
    return path


def bisect(checkpoint: Path, path: Path, *more: str) -> list[str]:
    return ["bisect", str(checkpoint), "--recipe", str(path), "--limit", "0.01", "--json", *more]


@pytest.mark.parametrize("layer", [0, 3])
def test_the_planted_pass_and_site(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], layer: int
) -> None:
    path, out = recipe(tmp_path, f"options = {{ layer = {layer} }}"), tmp_path / "out"
    assert cli.run(bisect(checkpoint, path, "--out", str(out))) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["pass"] == "scale_some" and told["reproducer"] == str(out)
    site = told["site"]
    assert (site["module"], site["op"]) == (f"model.layers.{layer}.mlp.down_proj", "linear")
    assert (site["edit"], site["edits"]) == (layer + 1, 4)
    assert site["before"] < 1e-6 and site["after"] == told["measured"][-1]["value"] > 0.01
    assert [m["name"] for m in told["measured"]].index("raise_rms_norm") < len(told["measured"]) - 1

    assert load_recipe(out / "recipe.toml").steps[0].options == {"layer": layer}
    assert Registry.built_in().with_plugin(out / "scale.py").find("scale_some")
    before, after = (parse((out / name).read_text()) for name in ("before.fir", "after.fir"))
    assert [n.loc.module for n in before.nodes] == [n.loc.module for n in after.nodes] == [site["module"]]
    done = subprocess.run([sys.executable, str(out / "run.py")], capture_output=True, text=True, check=True)
    assert done.stdout == f"%{site['value']}: 0.5 of the largest\n"
    readme = (out / "README.md").read_text()
    assert f"edit {layer + 1} of 4" in readme and "differs by 0.5 of its largest value" in readme
    assert f"| canonical | scale_some | 4 | {site['after']:.6g} |" in readme


def test_the_reproducer_reproduces(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(bisect(checkpoint, recipe(tmp_path), "--out", str(tmp_path / "out"))) == 1
    first = json.loads(capsys.readouterr().out)
    assert cli.run(bisect(checkpoint, tmp_path / "out/recipe.toml", "--out", str(tmp_path / "again"))) == 1
    second = json.loads(capsys.readouterr().out)
    assert first["site"] == second["site"] and first["measured"] == second["measured"]


@pytest.mark.parametrize(("metric", "limit"), [("kl", "0.01"), ("nll", "0.01"), ("top1", "0.99")])
def test_a_recipe_that_breaks_nothing(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str, limit: str
) -> None:
    path = recipe(tmp_path, "options = { factor = 1.0 }")
    argv = ["bisect", str(checkpoint), "--recipe", str(path), "--metric", metric, "--limit", limit, "--quiet"]
    assert cli.run(argv) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"every pass keeps the limit: {metric} ") and "after all" in out


def meter(metric: str, limit: float) -> Meter:
    graph = parse(MODEL.strip(), seed=0)
    ids = np.arange(16) % 16
    assert metric in ("kl", "nll", "top1")
    return Meter(graph, Sequence("calibration", ids, "counted", 0), metric, limit)  # type: ignore[arg-type]


def test_metrics_are_what_they_are_called() -> None:
    """Against the formulas in NumPy, on a head that is scaled by -1: every prediction turns over."""
    p = scale("budget", -1)
    graph = meter("kl", 1).reference
    other = p.run(graph).graph
    ids = np.arange(16)
    feeds = {"input_ids": ids[None], "positions": ids[None]}
    log = []
    for g in (graph, other):
        logits = run(g, feeds)[0][0].astype(np.float64)
        log.append(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))
    want = {
        "kl": (np.exp(log[0]) * (log[0] - log[1])).sum(-1).mean(),
        "nll": (log[0] - log[1])[ids[:-1], ids[1:]].mean(),
        "top1": (log[0].argmax(-1) == log[1].argmax(-1)).mean(),
    }
    for metric, value in want.items():
        assert meter(metric, 1).value(other) == pytest.approx(value, rel=1e-6, abs=1e-12)


def test_limits() -> None:
    kl, top1 = meter("kl", 0.5), meter("top1", 0.5)
    assert [kl.breaks(v) for v in (0.4, 0.5, 0.6, float("nan"))] == [False, False, True, True]
    assert [top1.breaks(v) for v in (0.4, 0.5, 0.6, float("nan"))] == [True, False, False, True]


def test_the_first_site_of_a_pass_with_one() -> None:
    found = meter("top1", 0.9)
    site = first_site(scale("budget", -1), found.reference, 1, found)
    assert site is not None and (site.number, site.root.out.name) == (1, "logits")
    assert first_site(scale("budget", 2), found.reference, 1, found) is None  # scaling up keeps every maximum


def test_a_block_is_what_differs_and_what_lies_between() -> None:
    text = """
graph @g(%x: f32[4]) -> (%e) {
  %a: f32[4] = exp(%x)
  %b: f32[4] = neg(%a)
  %c: f32[4] = abs(%b)
  %d: f32[4] = silu(%c)
  %e: f32[4] = neg(%d)
}"""
    before = parse(text.strip())
    after = parse(text.strip().replace("neg(%a)", "abs(%a)").replace("silu(%c)", "relu(%c)"))
    block = minimal_block(before, after, {"x": np.arange(4, dtype=np.float32)})
    assert [n.op for n in block.before.nodes] == ["neg", "abs", "silu"]
    assert [n.op for n in block.after.nodes] == ["abs", "abs", "relu"]
    assert list(block.inputs) == ["a"] and np.allclose(block.inputs["a"], np.exp(np.arange(4)))
    assert 0 < block.errors()["d"] < 1


def test_what_cannot_be_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    families.save("bert", tmp_path)
    assert cli.run(["bisect", str(tmp_path), "--limit", "0.01", "--quiet"]) == 2
    assert "this model has none: its output is %hidden" in capsys.readouterr().err
