"""Sparse attention shown: a table of heads, and a page that draws their masks. The page needs no other file."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from fretsaw.tools.report.attention import Attention, Head
from fretsaw.tools.report.words import number, plain

COLUMNS = ("layer", "head", "method", "density", "retained mass", "error", "bound", "options")


def attention_table(found: Attention) -> Table:
    """A row per layer and head."""
    title = f"{number(len(found.heads))} heads on {number(found.tokens)} tokens of {plain(found.source)}"
    table = Table(title=Text(title), title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in ("method", "options") else "right", overflow="fold")
    layer = None
    for head in found.heads:
        cells = (
            "" if head.layer == layer else str(head.layer), str(head.head), plain(head.method), f"{head.density:.1%}",
            f"{head.retained_mass:.4f}", f"{head.error:.2g}", f"{head.bound:.2g}", _options(head),
        )  # fmt: skip
        table.add_row(*map(Text, cells))
        layer = head.layer
    if found.heads:
        means = [sum(getattr(h, n) for h in found.heads) / len(found.heads) for n in ("density", "retained_mass")]
        worst = [max(getattr(h, n) for h in found.heads) for n in ("error", "bound")]
        table.add_section()
        table.add_row("all", "", "mean, worst", f"{means[0]:.1%}", f"{means[1]:.4f}", f"{worst[0]:.2g}",
                      f"{worst[1]:.2g}", "")  # fmt: skip
    return table


def _options(head: Head) -> str:
    return ", ".join(f"{plain(k)}={plain(str(v))}" for k, v in head.options.items())


def to_json(found: Attention) -> dict[str, object]:
    """Heads and means, without the masks' bits."""
    heads = [
        {"layer": h.layer, "head": h.head, "method": h.method, "options": dict(h.options), "density": h.density,
         "retained_mass": h.retained_mass, "error": h.error, "bound": h.bound}
        for h in found.heads
    ]  # fmt: skip
    return {"tokens": found.tokens, "source": found.source, "heads": heads, "masks": len(found.masks)}


def render_attention(found: Attention, name: str) -> str:
    """The page for an artifact called ``name``."""
    about = {(h.layer, h.head): h for h in found.heads}
    layers: dict[int, list[Mapping[str, object]]] = {}
    for mask in found.masks:
        head = about.get((mask.layer, mask.head))
        more = "" if head is None else f"error {head.error:.2g}, bound {head.bound:.2g}; {_options(head)}"
        said = "" if head is None else f"{head.method}, {head.density:.1%} of blocks, mass {head.retained_mass:.4f}"
        drawn = {"head": mask.head, "rows": mask.rows, "bits": base64.b64encode(mask.bits).decode(), "said": said,
                 "more": more}  # fmt: skip
        layers.setdefault(mask.layer, []).append(drawn)
    data = [{"layer": layer, "heads": layers[layer]} for layer in sorted(layers)]
    line = f"{number(len(found.heads))} heads on {number(found.tokens)} tokens of {found.source}"
    if not data:
        line += ". The file holds no masks."
    fields = {"TITLE": html.escape(plain(name)), "LINE": html.escape(plain(line)),
              "DATA": json.dumps(data).replace("<", "\\u003c")}  # fmt: skip
    return re.sub("@(TITLE|LINE|DATA)@", lambda found: fields[found[1]], PAGE)


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Attention of @TITLE@</title>
<meta name="viewport" content="width=device-width">
<style>
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --quiet: #666; --line: #ddd }
@media (prefers-color-scheme: dark) { :root { --ink: #eee; --paper: #161616; --quiet: #aaa; --line: #333 } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem }
h1 { font-size: 1.3rem } h2 { font-size: 1rem; border-top: 1px solid var(--line); padding-top: .8rem }
.heads { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: 160px }
canvas { width: 160px; height: 160px; image-rendering: pixelated; border: 1px solid var(--line) }
figcaption, p { color: var(--quiet) } figcaption { font-size: 12px; overflow-wrap: anywhere }
i { display: inline-block; width: .8em; height: .8em; border: 1px solid var(--line) }
</style></head><body>
<h1>Attention of @TITLE@</h1>
<p>@LINE@</p>
<p>A picture is a head: rows are blocks of 64 queries from the top, columns blocks of 64 keys from the left.
<i style="background:#1769aa"></i> read <i style="background:#cfd8e3"></i> left out <i></i> in the future</p>
<noscript><p>The pictures are drawn by a script in this page.</p></noscript>
<main></main>
<script type="application/json" id="data">@DATA@</script>
<script>
"use strict";
const make = (tag, parent, text) => {
  const made = parent.appendChild(document.createElement(tag));
  if (text) made.textContent = text;
  return made;
};
function draw(canvas, mask) {
  const n = mask.rows, bits = atob(mask.bits), context = canvas.getContext("2d");
  canvas.width = canvas.height = n;
  const image = context.createImageData(n, n);
  for (let row = 0, i = 0; row < n; ++row) for (let column = 0; column < n; ++column, ++i) {
    const read = bits.charCodeAt(i >> 3) >> (7 - (i & 7)) & 1;
    if (!read && column > row) continue;
    image.data.set(read ? [23, 105, 170, 255] : [207, 216, 227, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
}
const later = new IntersectionObserver(seen => {
  for (const one of seen) if (one.isIntersecting) { later.unobserve(one.target); draw(one.target, one.target.mask); }
}, { rootMargin: "600px" });
const main = document.querySelector("main");
for (const layer of JSON.parse(document.getElementById("data").textContent)) {
  make("h2", main, "Layer " + layer.layer);
  const row = make("div", main);
  row.className = "heads";
  for (const mask of layer.heads) {
    const figure = make("figure", row), canvas = make("canvas", figure);
    canvas.mask = mask;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "head " + mask.head + ": " + mask.said);
    figure.title = mask.more;
    make("figcaption", figure, "head " + mask.head + ": " + mask.said);
    later.observe(canvas);
  }
}
</script></body></html>
"""
