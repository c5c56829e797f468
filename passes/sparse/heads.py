"""Which head gets which method, and the masks of several methods as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fretsaw.ir import Value
from fretsaw.passes.kit.options import show
from fretsaw.passes.sparse.method import Columns, Selection
from fretsaw.passes.sparse.methods import METHODS
from fretsaw.passes.sparse.options import Sparse
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class Choice:
    """One method with its options for some heads of a layer."""

    heads: tuple[int, ...]
    options: Sparse


def choose(site: Site, options: Sparse, layers: int) -> tuple[Choice, ...] | str:
    """Methods for every head of a site, or why the layer stays dense.

    Args:
        layers: Attention layers of the model.
    """
    if options.layers and site.layer not in options.layers:
        return "it is none of the layers that were asked for"
    if site.layer in options.dense_layers:
        return "it is one of dense_layers"
    reason = options.dense_at(site.layer, layers)
    if reason:
        return reason
    choices = tuple(Choice(heads, own) for heads, own in options.parts(site.layer, site.heads))
    if options.planned() and all(c.options.method == "dense" for c in choices):
        return "the plan leaves all of its heads dense"
    return choices


def merged(site: Site, choices: Sequence[Choice]) -> Selection:
    """The selections of all heads as one: masks picked per head, spans only where a head has some."""
    found = [METHODS[c.options.method].emit(site, c.options) for c in choices]
    if len(found) == 1:
        return found[0]
    of_head = {h: i for i, c in enumerate(choices) for h in c.heads}
    choice = tuple(of_head[h] for h in range(site.heads))
    mask = site.emit("pick_heads", *_masks(found), choice=choice)
    sink = tuple(_at(found[i].sink, h) for h, i in enumerate(choice))
    window = tuple(_at(found[i].window, h) for h, i in enumerate(choice))
    return Selection(mask, sink, window, any(s.decode for s in found), _columns(found, choice))


def _columns(found: Sequence[Selection], choice: Sequence[int]) -> Columns | None:
    """Columns of the heads that have some; all of them come from the same scores."""
    listed = [s.columns for s in found if s.columns is not None]
    if not listed:
        return None
    counts = [own.counts[h] if (own := found[i].columns) else 0 for h, i in enumerate(choice)]
    return Columns(listed[0].scores, tuple(counts), max(c.first for c in listed))


def _masks(found: Sequence[Selection]) -> list[Value]:
    return [s.mask for s in found]


def _at(spans: tuple[int, ...], head: int) -> int:
    return spans[head] if spans else 0


def said(choices: Sequence[Choice], heads: int) -> str:
    """Methods and options as text: ``xattention:stride=8,threshold=0.9`` for all heads, ``0-2 A; 3 B`` otherwise."""
    texts = [(c, _method_text(c.options)) for c in choices]
    if len(texts) == 1 and len(texts[0][0].heads) == heads:
        return texts[0][1]
    return "; ".join(f"{ranges(c.heads)} {text}" for c, text in texts)


def _method_text(options: Sparse) -> str:
    own = {k: v for k, v in options.own().items() if v != ()}
    return f"{options.method}:{','.join(f'{k}={show(v)}' for k, v in own.items())}" if own else options.method


def ranges(numbers: Sequence[int]) -> str:
    """``0-2,5`` for 0, 1, 2, 5."""
    out: list[str] = []
    run: list[int] = []
    for n in [*sorted(numbers), -1]:
        if run and n != run[-1] + 1:
            out.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
            run = []
        run.append(n)
    return ",".join(out)
