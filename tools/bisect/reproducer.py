"""A folder that shows the culprit alone: recipe, the block before and after, its data, a README with the numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fretsaw.ir import Graph, to_text
from fretsaw.ir.errors import UsageError
from fretsaw.ir.excerpt import place
from fretsaw.passes.kit.recipe import Recipe
from fretsaw.tools.bisect.block import Block
from fretsaw.tools.bisect.meter import Meter
from fretsaw.tools.bisect.search import Culprit, Found

SCRIPT = '''"""Runs the block before and after the edit on its stored inputs, prints how far the outputs are apart."""

from pathlib import Path

import numpy as np

from fretsaw.ir import Const, parse, run

here = Path(__file__).parent


def load(name):
    text = (here / name).read_text()
    kinds = {v.name: c.type.dtype for v, c in parse(text).consts.items()}
    consts = {n: Const.of(np.load(here / "consts" / f"{n}.npy"), kind) for n, kind in kinds.items()}
    return parse(text, consts)


inputs = {path.name.removesuffix(".npy"): np.load(path) for path in (here / "inputs").iterdir()}
before, after = load("before.fir"), load("after.fir")
for value, a, b in zip(before.outputs, run(before, inputs), run(after, inputs)):
    print(f"%{value.name}: {np.abs(a - b).max() / np.abs(a).max():.6g} of the largest")
'''


@dataclass(frozen=True)
class Told:
    """What the README says beside the search: the command, and where the text came from."""

    command: str
    checkpoint: str
    plugins: tuple[Path, ...]


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something, before any work is done.

    Raises:
        UsageError: it is no folder, or not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and is not an empty folder", hint="name another one with --out")


def write(folder: Path, recipe: Recipe, found: Found, block: Block, meter: Meter, told: Told) -> list[Path]:
    """Write the reproducer and return its files."""
    culprit = found.culprit
    assert culprit is not None
    for name in ("inputs", "consts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(_recipe(folder, recipe, culprit, told.plugins))
    for name, graph in (("before.fir", block.before), ("after.fir", block.after)):
        (folder / name).write_text(to_text(graph) + "\n")
        _save(folder / "consts", {v.name: c.load() for v, c in graph.consts.items()})
    _save(folder / "inputs", block.inputs)
    (folder / "run.py").write_text(SCRIPT)
    (folder / "README.md").write_text(readme(found, culprit, block, meter, told))
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _save(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if "/" not in name:
            np.save(folder / f"{name}.npy", array)


def _recipe(folder: Path, recipe: Recipe, culprit: Culprit, plugins: Sequence[Path]) -> str:
    """The recipe cut to the culprit and the requested passes that it needs; plugins are copied beside it."""
    p = culprit.p
    steps = tuple(s for s in recipe.steps if s.name in {p.name, *p.after})
    names = []
    for plugin in plugins if steps else ():
        shutil.copyfile(plugin, folder / plugin.name)
        names.append(plugin.name)
    head = f"plugins = {json.dumps(names, ensure_ascii=False)}\n\n" if names else ""
    note = "" if steps else f"# {p.name} is a pass of the pipeline: it runs without being asked for\n"
    return head + note + Recipe(steps).to_toml().lstrip("\n")


def readme(found: Found, culprit: Culprit, block: Block, meter: Meter, told: Told) -> str:
    """The numbers and the commands, as Markdown."""
    site = culprit.site
    side = "at least" if meter.metric == "top1" else "at most"
    lines = [
        f"# {culprit.p.name} breaks {meter.metric}",
        "",
        f"    {told.command}",
        "",
        f"Metric: {meter.said(found.measured[-1].value)} after the pass; the limit is {side} {meter.limit:g}. Measured",
        f"on {meter.sequence.ids.size} tokens ({meter.sequence.source}) with the reference interpreter, against the "
        "graph before all passes.",
        "",
        f"Pass: `{culprit.p.name}`, phase {culprit.p.phase}, keeps {culprit.p.keeps}, {culprit.p.origin}.",
    ]
    if site is not None:
        lines += [
            "",
            f"Site: edit {site.number} of {site.total}, at `{place(site.root)}` ({site.root.op}).",
            f"Without it {meter.said(site.before_value)}, with it {meter.said(site.after_value)}.",
        ]
    lines += ["", "| phase | pass | edits | " + meter.metric + " |", "|---|---|---|---|"]
    lines += [f"| {m.phase} | {m.name} | {m.edits} | {m.value:.6g} |" for m in found.measured]
    lines += ["", "`before.fir` and `after.fir` are the smallest block in which the graphs differ, `inputs/` holds",
              "what flowed into it, `consts/` its constants. `python run.py` runs both:", ""]  # fmt: skip
    errors = block.errors()
    lines += [f"- `%{n}`: differs by {e:.6g} of its largest value" for n, e in errors.items()]
    lines += [] if errors else ["The block reads a cache: `run.py` needs a `ReferenceKvCache` for it."]
    lines += ["", "To compile with this pass alone:", "", f"    fretsaw compile {told.checkpoint} -o alone.fsaw "
              "--recipe recipe.toml"]  # fmt: skip
    return "\n".join(lines) + "\n"


def whole(culprit: Culprit) -> tuple[Graph, Graph]:
    """The graphs around the culprit: around its site where one was found."""
    if culprit.site is not None:
        return culprit.site.before, culprit.site.after
    return culprit.before, replace(culprit.after, phase=culprit.before.phase)
