"""``fretsaw bisect``: the first pass, then the first site, that breaks a limit; with a reproducer."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from fretsaw.frontend.checkpoint import Checkpoint
    from fretsaw.ir import Graph
    from fretsaw.passes.evidence.feeds import Sequence
    from fretsaw.tools.bisect.meter import Meter
    from fretsaw.tools.bisect.search import Found


@click.command("bisect", short_help="Find the pass and site that break a limit.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--recipe", type=click.Path(path_type=Path), help="Passes to try, with options and plugins.")
@click.option("--metric", type=click.Choice(["kl", "nll", "top1"]), default="kl", show_default=True,
              help="Mean KL divergence, growth of the loss (nats per token), share of equal top tokens.")  # fmt: skip
@click.option("--limit", required=True, type=float, help="Largest kl or nll, smallest top1, that is good.")
@click.option("--text", type=click.Path(path_type=Path), help="UTF-8 text to measure on; default: seeded tokens.")
@click.option("--tokens", default=64, show_default=True, type=click.IntRange(2), help="Most tokens to measure on.")
@click.option("--plugin", "plugins", multiple=True, type=click.Path(path_type=Path),
              help="File with passes; its code runs.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the reproducer. Default: bisect-PASS.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    checkpoint: Path,
    recipe: Path | None,
    metric: Literal["kl", "nll", "top1"],
    limit: float,
    text: Path | None,
    tokens: int,
    plugins: tuple[Path, ...],
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run the passes on CHECKPOINT one by one and name the first that breaks --limit, then the first of its sites.

    The metric is measured with the reference interpreter against the graph before all passes, so this is for small
    models. The folder --out gets a recipe with that pass alone, the smallest block of the graph before and after, its
    inputs, and a README with the numbers.

    Ends with status 0 when every pass keeps the limit, 1 when one breaks it; 2: wrong command line, 3: the checkpoint
    cannot be read, 5: a pass fails by itself.

    \b
    Examples:
      fretsaw bisect smollm2 --recipe recipe.toml --metric kl --limit 0.01
      fretsaw bisect smollm2 --recipe recipe.toml --metric top1 --limit 0.99 --text eval.txt --out repro
    """
    import json

    from fretsaw.passes.kit.compose import compose
    from fretsaw.passes.kit.recipe import Recipe, load_recipe
    from fretsaw.tools.bisect.meter import Meter
    from fretsaw.tools.bisect.reproducer import check_folder
    from fretsaw.tools.bisect.search import bisect
    from fretsaw.tools.reporter import Reporter

    asked = load_recipe(recipe) if recipe is not None else Recipe()
    passes = compose(asked, plugins)[1]
    if out is not None:
        check_folder(out)
    reporter = Reporter(quiet=quiet or as_json)
    with reporter.phase("capture"):
        source, graph = _capture(checkpoint)
    with reporter.phase("reference"):
        meter = Meter(graph, _sequence(graph, source, text, tokens), metric, limit)
    phases = ("canonical", "fused", "packed")
    with reporter.phase("passes") as phase:
        found = bisect(graph, phases, passes, meter, lambda name, done, total: phase.progress(done, total, name))
    folder = None
    if found.culprit is not None:
        folder = out or Path(f"bisect-{found.culprit.p.name}")
        _reproduce(folder, asked, found, meter, checkpoint, (*asked.plugins, *plugins))
    click.echo(
        json.dumps(_json(found, meter, folder), indent=2) if as_json else "\n".join(_lines(found, meter, folder))
    )
    click.get_current_context().exit(0 if found.culprit is None else 1)


def _capture(path: Path) -> tuple[Checkpoint, Graph]:
    from fretsaw.frontend.checkpoint import load_checkpoint
    from fretsaw.tools.capturing import captured_graph

    checkpoint = load_checkpoint(path)
    return checkpoint, captured_graph(checkpoint).graph


def _sequence(graph: Graph, checkpoint: Checkpoint, text: Path | None, tokens: int) -> Sequence:
    """Tokens to measure on.

    Raises:
        UsageError: the text cannot be read, has less than two tokens, or the checkpoint has no tokenizer.
    """
    from fretsaw.ir.errors import UsageError
    from fretsaw.passes.evidence.feeds import sequences
    from fretsaw.passes.evidence.options import EvidenceOptions

    if text is None:
        return sequences(graph, EvidenceOptions(), tokens)[0]
    from tokenizers import Tokenizer

    if checkpoint.tokenizer_json is None:
        raise UsageError("--text needs a tokenizer, and the checkpoint has no tokenizer.json", hint="leave --text out")
    try:
        content = text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read {text}: {why}") from None
    ids = Tokenizer.from_str(checkpoint.tokenizer_json.decode()).encode(content).ids
    if len(ids) < 2:
        raise UsageError(f"{text} has {len(ids)} tokens, at least 2 are needed")
    return sequences(graph, EvidenceOptions(calib=tuple(ids), calib_source=text.name), tokens)[0]


def _reproduce(
    folder: Path, recipe: object, found: Found, meter: Meter, checkpoint: Path, plugins: tuple[Path, ...]
) -> None:
    from fretsaw.passes.evidence.feeds import feed
    from fretsaw.passes.kit.recipe import Recipe
    from fretsaw.tools.bisect.block import minimal_block
    from fretsaw.tools.bisect.reproducer import Told, check_folder, whole, write

    assert isinstance(recipe, Recipe) and found.culprit is not None
    check_folder(folder)
    before, after = whole(found.culprit)
    block = minimal_block(before, after, feed(before, meter.sequence))
    line = f"fretsaw bisect {shlex.quote(str(checkpoint))} --recipe recipe.toml --metric {meter.metric} "
    told = Told(f"{line}--limit {meter.limit:g}", shlex.quote(str(checkpoint)), plugins)
    write(folder, recipe, found, block, meter, told)


def _lines(found: Found, meter: Meter, folder: Path | None) -> list[str]:
    from fretsaw.ir.excerpt import excerpt, place

    culprit = found.culprit
    if culprit is None:
        end = meter.said(found.measured[-1].value if found.measured else meter.value(meter.reference))
        return [f"every pass keeps the limit: {end} after all {len(found.measured)} passes that changed something"]
    last = found.measured[-1]
    lines = [f"{culprit.p.name} ({culprit.p.phase}) breaks the limit {meter.limit:g}: {meter.said(last.value)}"]
    if len(found.measured) > 1:
        earlier = found.measured[-2]
        lines.append(f"  before it, after {earlier.name}: {meter.said(earlier.value)}")
    site = culprit.site
    if site is None:
        lines.append("  the pass rewrites the graph as a whole: it has no single site")
    else:
        lines += [
            f"  site  edit {site.number} of {site.total}: {place(site.root)}",
            f"        without it {meter.said(site.before_value)}, with it {meter.said(site.after_value)}",
        ]
        shown = excerpt(site.before, site.root).splitlines()
        lines += [f"  {'>' if s.startswith('> ') else ' '} | {s[2:]}".rstrip() for s in shown]
    return [*lines, f"reproducer written to {folder}"]


def _json(found: Found, meter: Meter, folder: Path | None) -> Mapping[str, object]:
    from dataclasses import asdict

    culprit = found.culprit
    site = culprit.site if culprit is not None else None
    return {
        "metric": meter.metric, "limit": meter.limit, "tokens": meter.sequence.to_json(),
        "measured": [asdict(m) for m in found.measured],
        "pass": culprit.p.name if culprit is not None else None,
        "site": None if site is None else {
            "value": site.root.out.name if site.root.results else "", "op": site.root.op,
            "module": site.root.loc.module, "edit": site.number, "edits": site.total,
            "before": site.before_value, "after": site.after_value,
        },
        "reproducer": str(folder) if folder is not None else None,
    }  # fmt: skip
