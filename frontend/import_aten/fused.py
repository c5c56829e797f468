"""Import rules for whole attention and experts: the hooks' own ops, and torch's attention function."""

from __future__ import annotations

from fretsaw.frontend.import_aten.table import Context, rule
from fretsaw.ir import Attr, Value

HEADS_INNER = (0, 2, 1, 3)  # [B, H, S, E] <-> [B, S, H, E]


@rule("fretsaw.attention.default")
def _attention(c: Context) -> Value:
    q, k, v = (c.emit("transpose", c.value(n), perm=HEADS_INNER) for n in "qkv")
    sinks = c.optional("sinks")
    attrs: dict[str, Attr] = {n: c.number(n) for n in ("scale", "causal", "window", "softcap")}
    return c.emit("attention", q, k, v, *([sinks] if sinks is not None else []), **attrs)


@rule("aten.scaled_dot_product_attention.default")
def _torch_attention(c: Context) -> Value:
    c.fixed_false("attn_mask", "dropout_p")
    q, k, v = (c.emit("transpose", c.value(n), perm=HEADS_INNER) for n in ("query", "key", "value"))
    scale, size = c.arguments.get("scale"), q.tensor.shape[-1]
    if scale is None and isinstance(size, int):
        scale = float(size) ** -0.5
    if c.arguments["is_causal"] and q.tensor.shape[1] != k.tensor.shape[1]:
        raise c.fail("causal attention needs as many keys as queries")
    if not isinstance(scale, float):
        raise c.fail("scale must be a number")
    out = c.emit("attention", q, k, v, scale=scale, causal=bool(c.arguments["is_causal"]))
    return c.emit("transpose", out, perm=HEADS_INNER)


@rule("fretsaw.experts.default")
def _experts(c: Context) -> Value:
    gate_up, down = c.value("gate_up"), c.value("down")
    if c.arguments["transposed"]:  # stored [E, D, 2F] and [E, F, D]
        gate_up, down = (c.emit("transpose", w, perm=(0, 2, 1)) for w in (gate_up, down))
    biases = [v for n in ("gate_up_bias", "down_bias") if (v := c.optional(n)) is not None]
    attrs: dict[str, Attr] = {"act": str(c.arguments["act"]), "layout": str(c.arguments["layout"])}
    if c.arguments["limit"] is not None:
        attrs |= {"limit": c.number("limit"), "alpha": c.number("alpha")}
    return c.emit("experts", c.value("x"), c.value("index"), c.value("weight"), gate_up, down, *biases, **attrs)
