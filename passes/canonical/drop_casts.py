"""Drop casts that a wider type has made superfluous.

    cast(cast(%x) to wider) to type of %x          ==>      %x
    cast(cast(%x) to wider) to another type        ==>      cast(%x) to that type

Why:    models widen to float32 around norms and softmax and come back; what does nothing in between goes.
Needs:  the first type's values all exist in the second (f16 in f32, i8 in bf16, i32 in f64). A detour through a
        narrower type rounds and stays.
Keeps:  bits.
Stops:  each edit leaves one cast of a cast fewer.
Source: common practice; IEEE 754-2019, section 5.4.2 (widening conversions are exact).
"""

from __future__ import annotations

from collections.abc import Mapping

from fretsaw.ir import DType, Graph, Node
from fretsaw.passes.api import Decline, Edit, rule
from fretsaw.passes.kit.match import made_by

WIDER: Mapping[DType, tuple[str, ...]] = {  # types that hold every value of the key; bf16 has 8 significant bits
    "bool": ("i8", "u8", "i32", "i64", "f16", "bf16", "f32", "f64"),
    "i8": ("i32", "i64", "f16", "bf16", "f32", "f64"),
    "u8": ("i32", "i64", "f16", "bf16", "f32", "f64"),
    "i32": ("i64", "f64"),
    "i64": (),
    "f16": ("f32", "f64"),
    "bf16": ("f32", "f64"),
    "f32": ("f64",),
    "f64": (),
}


@rule(root="cast", phase="canonical", keeps="bits")
def drop_casts(root: Node, g: Graph) -> Edit | Decline | None:
    """One cast for two in a row; none when they come back to where they began."""
    inner = made_by(g, root["x"], "cast")
    if inner is None:
        return None
    first, middle = inner["x"].tensor.dtype, inner.out.tensor.dtype
    if first != middle and middle not in WIDER[first]:
        return Decline(f"the detour through {middle} does not keep every value of {first}", at=inner)
    edit = Edit()
    if root.out.tensor.dtype == first:
        edit.redirect(root.out, inner["x"])
    else:
        edit.rewrite(root, "cast", inner["x"], dtype=root.out.tensor.dtype)
    return edit
