"""``fretsaw explain``: why a pass fired at a site, or did not."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("explain", short_help="Show why a pass did not fire.")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("name", metavar="PASS[:option=value,...]")
@click.option("--site", default="", metavar="PATH", help="Only this module path, for example layers.3.self_attn.")
@click.option(
    "--plugin", "plugins", multiple=True, type=click.Path(path_type=Path), help="File with passes; its code runs."
)
@click.option("--most", type=click.IntRange(1), default=8, show_default=True, help="Near misses to show.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every near miss.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(
    source: Path, name: str, site: str, plugins: tuple[Path, ...], most: int, as_json: bool, quiet: bool
) -> None:
    """Run SOURCE up to where PASS stands, then PASS, and show what it hit and what it nearly hit.

    SOURCE is a checkpoint directory, an artifact (.fsaw) or an IR text (.fir). A near miss is a site whose rule saw
    its shape and then declined: it is shown with the reason and the line that stood in the way, the deepest first. An
    artifact or a text has no weights: a pass that reads them needs the checkpoint.

    Ends with status 0 when the pass could be asked, also when it hit nothing; 2: wrong command line, unknown pass or
    path; 3: the checkpoint cannot be read; 5: an earlier pass failed.

    \b
    Examples:
      fretsaw explain smollm2 raise_rope
      fretsaw explain smollm2 merge_qkv --site layers.3.self_attn
      fretsaw explain build/ir/00_captured.fir raise_rms_norm --json
    """
    import json
    from dataclasses import replace

    from fretsaw.passes.kit.compose import compose
    from fretsaw.passes.kit.recipe import Place, Recipe, parse_step
    from fretsaw.tools.explain.near import explain
    from fretsaw.tools.explain.report import at_site, check_site, lines, to_json
    from fretsaw.tools.explain.stand import load_graph, stand
    from fretsaw.tools.reporter import Reporter

    step = replace(parse_step(name), place=Place("argument PASS"))
    p = compose(Recipe((step,)), plugins)[1][0]
    reporter = Reporter(quiet=quiet or as_json)
    with reporter.phase("read"):
        graph = load_graph(source, p.phase)
    with reporter.phase("passes before"):
        graph = stand(graph, p)
        if site:
            check_site(graph, site)
    with reporter.phase(p.name):
        found = explain(p, graph)
    found = at_site(found, site) if site else found
    click.echo(json.dumps(to_json(found, site), indent=2) if as_json else "\n".join(lines(found, site, most)))
