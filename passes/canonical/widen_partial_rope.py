"""A rope on the first features of a head is a rope on the whole head with fewer frequencies.

    %a = slice(%x) {last, 0:2R}
    %b = slice(%x) {last, 2R:E}
    %y = concat(rope(%a, ..), %b)         ==>     %y = rope(%x, ..)

Why:    no slicing and joining of every query and key.
Needs:  the slices lie side by side, the turned one first, layout half or interleaved.
Keeps:  bits.
Stops:  each edit leaves one concat fewer.
Source: GPT-NeoX, arXiv:2204.06745 (rotary on a quarter of the head).
"""

from __future__ import annotations

from fretsaw.ir import Graph, Node
from fretsaw.passes.api import Decline, Edit, rule
from fretsaw.passes.kit.match import last_axis, made_by


@rule(root="concat", phase="canonical", keeps="bits")
def widen_partial_rope(root: Node, g: Graph) -> Edit | Decline | None:
    """One rope over the joined head."""
    if len(root.operands) != 2 or root.attr("axis") != last_axis(root.out):
        return None
    rope = made_by(g, root.operands[0], "rope")
    if rope is None:
        return None
    low, high = made_by(g, rope["x"], "slice"), made_by(g, root.operands[1], "slice")
    if low is None or high is None or low["x"] != high["x"]:
        return Decline("the parts are not slices of one value", at=root)
    last = last_axis(low["x"])
    if not low.attr("axis") == high.attr("axis") == last or low.attr("end") != high.attr("start"):
        return Decline("the slices do not lie side by side along the last axis", at=high)
    if low.attr("step") != 1 or high.attr("step") != 1:
        return Decline("a slice has a stride", at=low)
    edit = Edit()
    x, start, end = low["x"], low.int_attr("start"), high.int_attr("end")
    if (start, end) != (0, x.tensor.shape[-1]):
        x = edit.insert("slice", x, before=root, axis=last, start=start, end=end)
    edit.rewrite_node(root, "rope", [x, rope["positions"], rope["inv_freq"]], dict(rope.attrs))
    return edit
