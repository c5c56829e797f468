"""Raise attention written out to one op.

    %s = matmul(%q, transpose(%k)) * scale             [B, H, S, T], heads first
    %c = tanh(%s / cap) * cap                          or not
    %m = where(%seen, %c, -inf)                        or add(%c, %mask), or both, or none
    %p = softmax(%m)                          ==>      transpose(attention(%q', %k', %v') {causal, scale, softcap,
    %y = matmul(%p, %v)                                                                   window}), token-major inside

    %k, %v: every head repeated H / K times   ==>      K heads: the op shares them
    %p = softmax(concat(%m, sinks))[.., :T]   ==>      attention(.., sinks)
    softmax(%m - max(%m))                     ==>      as softmax(%m)

Why:    one kernel that never writes the S x T weights; the handle of every sparse, cache and packing pass.
Needs:  a mask that `masks` recognises as causal, sliding or none; nothing else reads logits or weights.
Keeps:  algebra: hidden logits have weight zero instead of exp(-large).
Stops:  each edit leaves one softmax between products fewer.
Source: arXiv:1706.03762; grouped heads arXiv:2305.13245; soft cap arXiv:2408.00118; sinks arXiv:2508.10925.
"""

from __future__ import annotations

from collections.abc import Sequence

from fretsaw.ir import Attr, Graph, Node
from fretsaw.passes.api import Decline, Edit, rule
from fretsaw.passes.canonical.logits import read_logits, written_attention
from fretsaw.passes.canonical.masks import find_mask
from fretsaw.passes.kit.match import flat_const

HEADS_INNER = (0, 2, 1, 3)  # [B, H, S, E] <-> [B, S, H, E]


def written_out(graph: Graph) -> Sequence[Node]:
    """Products of a softmax of logits that are a product themselves."""
    return [n for n in graph.nodes if n.op == "matmul" and written_attention(graph, n) is not None]


@rule(root="matmul", phase="canonical", keeps="algebra", clears=written_out)
def raise_attention(root: Node, g: Graph) -> Edit | Decline | None:
    """The attention that the product ``root`` of weights and values ends."""
    softmax = written_attention(g, root)
    if softmax is None:
        return None
    found = read_logits(g, softmax, root)
    if isinstance(found, Decline):
        return found
    mask = find_mask(g, found.masks, found.shape)
    if isinstance(mask, Decline):
        return mask
    if mask.padding or mask.prefix:
        what = "padding" if mask.padding else "prefix"
        return Decline(
            f"recognised as a {what} mask ({mask}), which op attention does not express", at=found.masks[0].at
        )
    edit = Edit()
    q, k, v = (
        edit.insert("transpose", x, before=root, name=f"{root.out.name}.{slot}", perm=HEADS_INNER)
        for slot, x in (("q", found.q), ("k", found.k), ("v", found.v))
    )
    sinks = [] if found.sinks is None else [flat_const(edit, g, found.sinks)]
    attrs: dict[str, Attr] = {
        "causal": mask.causal, "window": mask.window, "scale": found.scale, "softcap": found.softcap,
    }  # fmt: skip
    inner = edit.insert_node("attention", [q, k, v, *sinks], attrs, before=root)
    edit.rewrite(root, "transpose", inner.out, perm=HEADS_INNER)
    return edit
