"""Import rules for whole attention and experts: the hooks' own ops, and torch's attention function."""

from __future__ import annotations

from fretsaw.frontend.import_aten.table import Context, rule
from fretsaw.ir import Attr, DimLike, Value

HEADS_INNER = (0, 2, 1, 3)  # [B, H, S, E] <-> [B, S, H, E]


@rule("fretsaw.attention.default")
def _attention(c: Context) -> Value:
    q, k, v = (c.emit("transpose", c.value(n), perm=HEADS_INNER) for n in "qkv")
    sinks = c.optional("sinks")
    attrs: dict[str, Attr] = {n: c.number(n) for n in ("scale", "causal", "window", "softcap")}
    return c.emit("attention", q, k, v, *([sinks] if sinks is not None else []), **attrs)


@rule("aten.scaled_dot_product_attention.default")
def _torch_attention(c: Context) -> Value:
    """One op where torch is told what the mask is; written out where it gets a mask, for `raise_attention` to read."""
    c.fixed_false("dropout_p")
    q, k, v = (c.value(n) for n in ("query", "key", "value"))
    scale, size, mask = c.arguments.get("scale"), q.tensor.shape[-1], c.optional("attn_mask")
    if scale is None and isinstance(size, int):
        scale = float(size) ** -0.5
    if not isinstance(scale, float):
        raise c.fail("scale must be a number")
    if mask is not None:
        return _written_out(c, q, k, v, mask, scale)
    q, k, v = (c.emit("transpose", x, perm=HEADS_INNER) for x in (q, k, v))
    if c.arguments["is_causal"] and q.tensor.shape[1] != k.tensor.shape[1]:
        raise c.fail("causal attention needs as many keys as queries")
    out = c.emit("attention", q, k, v, scale=scale, causal=bool(c.arguments["is_causal"]))
    return c.emit("transpose", out, perm=HEADS_INNER)


def _written_out(c: Context, q: Value, k: Value, v: Value, mask: Value, scale: float) -> Value:
    """softmax(q kT * scale, masked) v, every query head with keys of its own."""
    heads, dtype = q.tensor.shape[1], q.tensor.dtype
    if k.tensor.shape[1] != heads:
        k, v = _repeated(c, k, heads), _repeated(c, v, heads)
    scores = c.emit("matmul", q, c.emit("transpose", k, perm=(0, 1, 3, 2)))
    scores = c.emit("mul", scores, c.scalar(scale, dtype))
    if mask.tensor.dtype == "bool":
        scores = c.emit("where", mask, scores, c.scalar(float("-inf"), dtype))
    else:
        scores = c.emit("add", scores, c.cast(mask, dtype))
    return c.emit("matmul", c.emit("softmax", scores, axis=3), v)


def _repeated(c: Context, x: Value, heads: DimLike) -> Value:
    """x [B, K, T, E] with every head as often as ``heads`` need it."""
    batch, own, tokens, size = x.tensor.shape
    if not isinstance(own, int) or not isinstance(heads, int) or heads % own:
        raise c.fail(f"{heads} query heads cannot share {own} key heads")
    x = c.reshape(x, (batch, own, 1, tokens, size))
    x = c.emit("expand", x, shape=(batch, own, heads // own, tokens, size))
    return c.reshape(x, (batch, heads, tokens, size))


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
