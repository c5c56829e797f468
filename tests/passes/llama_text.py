"""IR text of a captured Llama with any number of layers, written as transformers' eager code comes out of capture."""

from __future__ import annotations

from collections.abc import Iterator

HEADS, KV_HEADS, SIZE, WIDTH, FFN, VOCAB = 4, 2, 8, 32, 48, 64
HALF = SIZE // 2
HIDDEN, ONE = f"f32[B, S, {WIDTH}]", "f32[B, S, 1]"
SWAP = "{perm = [0, 2, 1, 3]}"


def llama(layers: int) -> str:
    """The text; weights are declared without data."""
    lines = [*_rotary(), f"%emb: {HIDDEN} = embedding(%input_ids, %embed)  // model.embed_tokens"]
    consts = _shared_consts()
    x = "%emb"
    for i in range(layers):
        consts += _layer_consts(f"l{i}")
        lines += _layer(f"l{i}", f"model.layers.{i}", x)
        x = f"%l{i}.x"
    lines += _norm("fn", x, "fn.weight", "model.norm")
    lines.append(f"%logits: f32[B, S, {VOCAB}] = linear(%fn, %embed)  // lm_head")
    head = "graph @llama(%input_ids: i64[B, S], %positions: i64[B, S]) -> (%logits) {"
    dims = ["dim B in [1, 64]", "dim S in [1, 4096]"]
    return "\n".join([head, *(f"  {line}" for line in [*dims, *consts, *lines]), "}"])


def _shared_consts() -> list[str]:
    frequencies = ", ".join(str(10000.0 ** (-2 * i / SIZE)) for i in range(HALF))
    return [
        f"const %embed: f32[{VOCAB}, {WIDTH}]",
        f"const %inv_freq: f32[{HALF}] = data([{frequencies}])",
        "const %one: f32[] = data([1.0])",
        "const %two: f32[] = data([2.0])",
        "const %eps: f32[] = data([1e-05])",
        f"const %fn.weight: f32[{WIDTH}]",
    ]


def _layer_consts(p: str) -> list[str]:
    shapes = {
        "ln1": [WIDTH], "q_proj": [HEADS * SIZE, WIDTH], "k_proj": [KV_HEADS * SIZE, WIDTH],
        "v_proj": [KV_HEADS * SIZE, WIDTH], "o_proj": [WIDTH, HEADS * SIZE], "ln2": [WIDTH], "gate": [FFN, WIDTH],
        "up": [FFN, WIDTH], "down": [WIDTH, FFN],
    }  # fmt: skip
    return [f"const %{p}.{name}.weight: f32{shape}" for name, shape in shapes.items()]


def _rotary() -> Iterator[str]:
    full = f"f32[B, S, {SIZE}]"
    yield '%pf: f32[B, S] = cast(%positions) {dtype = "f32"}  // model.rotary_emb'
    yield f"%pu: {ONE} = reshape(%pf) {{shape = [B, S, 1]}}"
    yield f"%fr: f32[B, S, {HALF}] = mul(%pu, %inv_freq)"
    yield f"%em: {full} = concat(%fr, %fr) {{axis = 2}}"
    for fn in ("cos", "sin"):
        yield f"%{fn}r: {full} = {fn}(%em)"
        yield f"%{fn}: {full} = mul(%{fn}r, %one)"


def _norm(p: str, x: str, weight: str, module: str) -> Iterator[str]:
    yield f"%{p}.sq: {HIDDEN} = pow({x}, %two)  // {module}"
    yield f"%{p}.m: {ONE} = mean(%{p}.sq) {{axis = 2, keepdims = true}}  // {module}"
    yield f"%{p}.a: {ONE} = add(%{p}.m, %eps)  // {module}"
    yield f"%{p}.r: {ONE} = rsqrt(%{p}.a)  // {module}"
    yield f"%{p}.x: {HIDDEN} = mul({x}, %{p}.r)  // {module}"
    yield f"%{p}: {HIDDEN} = mul(%{weight}, %{p}.x)  // {module}"


def _layer(p: str, module: str, x: str) -> Iterator[str]:
    attn, mlp = f"{module}.self_attn", f"{module}.mlp"
    yield from _norm(f"{p}.n1", x, f"{p}.ln1.weight", f"{module}.input_layernorm")
    for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
        flat, split = f"f32[B, S, {heads * SIZE}]", f"[B, S, {heads}, {SIZE}]"
        yield f"%{p}.{name}: {flat} = linear(%{p}.n1, %{p}.{name}_proj.weight)  // {attn}.{name}_proj"
        yield f"%{p}.{name}.v: f32{split} = reshape(%{p}.{name}) {{shape = {split}}}  // {attn}"
        yield f"%{p}.{name}.t: f32[B, {heads}, S, {SIZE}] = transpose(%{p}.{name}.v) {SWAP}  // {attn}"
    for fn in ("cos", "sin"):
        yield f"%{p}.{fn}: f32[B, 1, S, {SIZE}] = reshape(%{fn}) {{shape = [B, 1, S, {SIZE}]}}  // {attn}"
    yield from _rope(f"{p}.q", p, HEADS, attn)
    yield from _rope(f"{p}.k", p, KV_HEADS, attn)
    for name, heads, source in (("q", HEADS, "e"), ("k", KV_HEADS, "e"), ("v", KV_HEADS, "t")):
        yield f"%{p}.{name}.b: f32[B, S, {heads}, {SIZE}] = transpose(%{p}.{name}.{source}) {SWAP}  // {attn}"
    out = f"f32[B, S, {HEADS}, {SIZE}]"
    yield f"%{p}.o: {out} = attention(%{p}.q.b, %{p}.k.b, %{p}.v.b) {{scale = {SIZE**-0.5}}}  // {attn}"
    yield f"%{p}.of: f32[B, S, {HEADS * SIZE}] = reshape(%{p}.o) {{shape = [B, S, {HEADS * SIZE}]}}  // {attn}"
    yield f"%{p}.op: {HIDDEN} = linear(%{p}.of, %{p}.o_proj.weight)  // {attn}.o_proj"
    yield f"%{p}.h: {HIDDEN} = add({x}, %{p}.op)  // {module}"
    yield from _norm(f"{p}.n2", f"%{p}.h", f"{p}.ln2.weight", f"{module}.post_attention_layernorm")
    wide = f"f32[B, S, {FFN}]"
    yield f"%{p}.g: {wide} = linear(%{p}.n2, %{p}.gate.weight)  // {mlp}.gate_proj"
    yield f"%{p}.ga: {wide} = silu(%{p}.g)  // {mlp}.act_fn"
    yield f"%{p}.u: {wide} = linear(%{p}.n2, %{p}.up.weight)  // {mlp}.up_proj"
    yield f"%{p}.gu: {wide} = mul(%{p}.ga, %{p}.u)  // {mlp}"
    yield f"%{p}.d: {HIDDEN} = linear(%{p}.gu, %{p}.down.weight)  // {mlp}.down_proj"
    yield f"%{p}.x: {HIDDEN} = add(%{p}.h, %{p}.d)  // {module}"


def _rope(x: str, p: str, heads: int, module: str) -> Iterator[str]:
    full, half = f"f32[B, {heads}, S, {SIZE}]", f"f32[B, {heads}, S, {HALF}]"
    yield f"%{x}.c: {full} = mul(%{x}.t, %{p}.cos)  // {module}"
    yield f"%{x}.lo: {half} = slice(%{x}.t) {{axis = 3, start = 0, end = {HALF}}}  // {module}"
    yield f"%{x}.hi: {half} = slice(%{x}.t) {{axis = 3, start = {HALF}, end = {SIZE}}}  // {module}"
    yield f"%{x}.ng: {half} = neg(%{x}.hi)  // {module}"
    yield f"%{x}.rt: {full} = concat(%{x}.ng, %{x}.lo) {{axis = 3}}  // {module}"
    yield f"%{x}.s: {full} = mul(%{x}.rt, %{p}.sin)  // {module}"
    yield f"%{x}.e: {full} = add(%{x}.c, %{x}.s)  // {module}"
